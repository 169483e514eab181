"""The appraisal policy: one TOML file that says which evidence is good enough.

Everything left out has the strictest value, every unknown field is refused, and a root of
trust must be named. A policy is for Intel's root, for one simulated root, or for kernels that are not
attested and have no root at all; never for two of these.

Read by :mod:`sealbook.attestation.policy_reader`; :mod:`sealbook.attestation.policy_text` writes a
commented example of every field.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509

from sealbook.attestation import intel
from sealbook.encoding import canonical_json
from sealbook.errors import InputError

#: The only version of the file format.
SCHEMA = 1
MAX_POLICY_BYTES = 256 * 1024
#: A common name must contain this word for its root to count as a simulated one.
SIMULATED_MARK = "SIMULATED"
#: What dcap-qvl and Intel's TCB info call the states of a platform; "Revoked" can never be allowed.
TCB_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
#: ATTRIBUTES bits every policy demands: INIT=1, DEBUG=0, MODE64BIT=1, PROVISIONKEY=0, EINITTOKEN_KEY=0.
BASE_ATTRIBUTES_MASK = 0x37
BASE_ATTRIBUTES_VALUE = 0x05

#: Gramine without SGX: the library OS of the hardware kernel as an ordinary process, for development.
GRAMINE_DIRECT = "gramine-direct"
#: What runs kernels that cannot attest themselves. A policy admits one of them, by name, or none.
UNATTESTED_TEES = (GRAMINE_DIRECT,)
#: Every value of a policy's `tee`.
TEES = ("sgx", *UNATTESTED_TEES)

_DAY = 24 * 3600


class PolicyError(InputError):
    """The policy cannot be used; the sentence names the file, the line and the cause."""


@dataclass(frozen=True)
class TrustRoot:
    """The certificate every chain must end in, or the word that there is none.

    Attributes
    ----------
    kind
        ``"intel"``, ``"simulated"`` or ``"none"``. What is not the one is not therefore the other.
    der
        The X.509 certificate; empty for ``"none"``.
    """

    kind: str
    der: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("intel", "simulated", "none") or (self.kind == "none") != (not self.der):
            raise ValueError("a root of trust is intel or simulated and has a certificate, or is none")
        if (self.kind == "intel") != (self.der == intel.ROOT_CA_DER):
            raise ValueError("exactly Intel's own root is called intel")

    @property
    def simulated(self) -> bool:
        """Whether this is the root of a simulated platform."""
        return self.kind == "simulated"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, lower-case hex; empty where there is none."""
        return hashlib.sha256(self.der).hexdigest() if self.der else ""

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The parsed certificate."""
        return x509.load_der_x509_certificate(self.der)


INTEL_ROOT = TrustRoot("intel", intel.ROOT_CA_DER)
#: Of policies that admit kernels which are not attested.
NO_ROOT = TrustRoot("none", b"")


@dataclass(frozen=True)
class Identity:
    """One enclave (or family of enclaves) that is admitted; every stated field must match.

    Attributes
    ----------
    mrenclave
        Admitted measurements, 32 bytes each. Empty only with `mrsigner_only`.
    mrsigner
        32 bytes, or None for any signer of a pinned measurement.
    isv_prod_id, min_isv_svn
        Product and least security version, or None.
    attributes_mask, attributes_value
        16 bytes each, on top of :data:`BASE_ATTRIBUTES_MASK`.
    misc_select_mask, misc_select_value
        32-bit masks.
    config_id
        64 bytes; zero unless the policy says otherwise, because the host chooses it.
    """

    name: str
    mrenclave: tuple[bytes, ...] = ()
    mrsigner: bytes | None = None
    isv_prod_id: int | None = None
    min_isv_svn: int | None = None
    mrsigner_only: bool = False
    attributes_mask: bytes = bytes(16)
    attributes_value: bytes = bytes(16)
    misc_select_mask: int = 0
    misc_select_value: int = 0
    config_id: bytes = bytes(64)


@dataclass(frozen=True)
class TcbRules:
    """What is asked of the platform's microcode, firmware and configuration."""

    allowed_statuses: tuple[str, ...] = ("UpToDate",)
    accepted_advisories: tuple[str, ...] = ()
    rejected_advisories: tuple[str, ...] = ()
    grace_seconds: int = 0
    min_tcb_eval_data_number: int = 0
    equal_eval_data_numbers: bool = True
    sgx_types: tuple[int, ...] = (0, 1, 2)
    allow_dynamic_platform: bool = False
    allow_cached_keys: bool = False
    allow_smt: bool = False
    fmspc: tuple[str, ...] = ()
    ppid_allow: tuple[str, ...] = ()
    ppid_deny: tuple[str, ...] = ()
    platform_instance_allow: tuple[str, ...] = ()
    platform_instance_deny: tuple[str, ...] = ()


@dataclass(frozen=True)
class CollateralRules:
    """How old the platform maker's statements may be."""

    max_age_seconds: int = 30 * _DAY
    min_issue_date: datetime | None = None
    monotonic: bool = True


@dataclass(frozen=True)
class FreshnessRules:
    """How long a challenge can be answered; each is answered once in any case."""

    nonce_ttl_seconds: int = 60


@dataclass(frozen=True)
class ReleaseRules:
    """What evidence that passed may then have.

    Attributes
    ----------
    keys
        Names of keys; ``"*"`` at the end stands for anything. Empty: none.
    roles, audiences
        Empty: any.
    max_uses
        Releases in one session, or None for no limit.
    ttl_seconds
        For how long evidence may be used before the enclave must attest again.
    max_sessions
        Sessions at the same time, or None.
    """

    keys: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    max_uses: int | None = None
    ttl_seconds: int = 12 * 3600
    max_sessions: int | None = None

    def admits_key(self, name: str) -> bool:
        """Whether a key of this name may be released."""
        return any(
            name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
            for pattern in self.keys
        )

    def admits_role(self, role: str) -> bool:
        """Whether an enclave in this role may have keys."""
        return not self.roles or role in self.roles

    def admits_audience(self, audience: str) -> bool:
        """Whether evidence made for this audience counts."""
        return not self.audiences or audience in self.audiences


@dataclass(frozen=True)
class Policy:
    """A checked policy; make it with :meth:`load` or :meth:`parse`.

    Raises
    ------
    ValueError
        It has a root of trust, or admits an enclave, for kernels that are not attested; or has none for
        others.
    """

    id: str
    created: datetime
    expires: datetime
    trust_root: TrustRoot
    identities: tuple[Identity, ...]
    version: int = 1
    tee: str = "sgx"
    tcb: TcbRules = TcbRules()
    collateral: CollateralRules = CollateralRules()
    freshness: FreshnessRules = FreshnessRules()
    release: ReleaseRules = ReleaseRules()

    def __post_init__(self) -> None:
        unattested = self.tee in UNATTESTED_TEES
        if unattested != (self.trust_root.kind == "none") or unattested == bool(self.identities):
            raise ValueError("exactly a policy for kernels that are not attested has no root and no enclave")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, digest: str | None = None) -> Policy:
        """Read a policy file.

        Parameters
        ----------
        path
            The TOML file.
        digest
            If given, the policy must have this :attr:`digest`: an edited file or an older
            version of it is refused.

        Raises
        ------
        PolicyError
            The file is missing, too long, not TOML, has an unknown or missing field, or
            another digest.
        """
        source = Path(path)
        try:
            with source.open("rb") as file:
                raw = file.read(MAX_POLICY_BYTES + 1)
        except OSError as error:
            raise PolicyError(f"The policy {source} cannot be read ({error.strerror}).") from None
        if len(raw) > MAX_POLICY_BYTES:
            raise PolicyError(f"{source}: longer than the {MAX_POLICY_BYTES} bytes a policy may have.")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise PolicyError(f"{source}: not UTF-8 text.") from None
        policy = cls.parse(text, source=str(source))
        if digest is not None and not hmac.compare_digest(policy.digest.encode(), digest.lower().encode()):
            raise PolicyError(
                f"{source}: this is not the policy that was approved (its digest is {policy.digest[:16]}..., "
                f"not {digest[:16]}...); restore the approved file or approve this one."
            )
        return policy

    @classmethod
    def parse(cls, text: str, source: str = "policy.toml") -> Policy:
        """Check the text of a policy; `source` is only named in errors.

        Raises
        ------
        PolicyError
            With source, line and cause.
        """
        from sealbook.attestation.policy_reader import read_policy

        return read_policy(text, source)

    @property
    def simulated(self) -> bool:
        """Whether it admits simulated evidence (and then nothing else)."""
        return self.trust_root.simulated

    @property
    def attested(self) -> bool:
        """Whether it asks for evidence at all. False: it admits kernels that prove nothing, and only them."""
        return self.trust_root.kind != "none"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form, hex: equal for files that differ in layout only."""
        return hashlib.sha256(canonical_json(_plain(asdict(self)))).hexdigest()

    def check_valid(self, now: datetime) -> None:
        """Refuse a policy outside its time.

        Raises
        ------
        PolicyError
            It is not in force yet, or not any more.
        """
        if now >= self.expires:
            raise PolicyError(
                f"The policy {self.id!r} expired on {_day(self.expires)}; "
                "review it and write a new one with `sealbook policy init --force`."
            )
        if now < self.created:
            raise PolicyError(
                f"The policy {self.id!r} is in force only from {self.created:%Y-%m-%d %H:%M} UTC; "
                "check this machine's clock."
            )

    def explain(self) -> list[str]:
        """Return what the policy admits, as sentences for a person."""
        from sealbook.attestation.policy_explanation import explain

        return list(explain(self))

    @staticmethod
    def render(**arguments: Any) -> str:
        """Write a commented policy file; see :func:`sealbook.attestation.policy_text.policy_text`."""
        from sealbook.attestation.policy_text import policy_text

        return policy_text(**arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value


def _day(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d}"
