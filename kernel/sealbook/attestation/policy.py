"""The appraisal policy: one TOML file that says which evidence is good enough.

Everything left out has the strictest value, every unknown field is refused, and a root of
trust must be named. A policy is for Intel's root or for one simulated root, never for both.

See :mod:`sealbook.attestation.policy_text` for a commented example of every field.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

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

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DAY = 24 * 3600


class PolicyError(InputError):
    """The policy cannot be used; the sentence names the file, the line and the cause."""


@dataclass(frozen=True)
class TrustRoot:
    """The certificate every chain must end in.

    Attributes
    ----------
    kind
        ``"intel"`` or ``"simulated"``.
    der
        The X.509 certificate.
    """

    kind: str
    der: bytes = field(repr=False)

    @property
    def simulated(self) -> bool:
        """Whether this is the root of a simulated platform."""
        return self.kind != "intel"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, lower-case hex."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The parsed certificate."""
        return x509.load_der_x509_certificate(self.der)


INTEL_ROOT = TrustRoot("intel", intel.ROOT_CA_DER)


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
    """A checked policy; make it with :meth:`load` or :meth:`parse`."""

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
        return _Reader(text, source).policy()

    @property
    def simulated(self) -> bool:
        """Whether it admits simulated evidence (and then nothing else)."""
        return self.trust_root.simulated

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
                "review it and write a new one with `sealbook policy init`."
            )
        if now < self.created:
            raise PolicyError(
                f"The policy {self.id!r} is in force only from {self.created:%Y-%m-%d %H:%M} UTC; "
                "check this machine's clock."
            )

    def explain(self) -> list[str]:
        """Return what the policy admits, as sentences for a person."""
        return list(_explain(self))

    @staticmethod
    def render(**arguments: Any) -> str:
        """Write a commented policy file; see :func:`sealbook.attestation.policy_text.policy_text`."""
        from sealbook.attestation.policy_text import policy_text

        return policy_text(**arguments)


def _explain(policy: Policy) -> Iterable[str]:
    if policy.simulated:
        yield (
            "Admits only SIMULATED evidence, of the one simulated platform with root certificate "
            f"{policy.trust_root.fingerprint[:16]}...; it protects nothing from whoever controls this machine."
        )
    else:
        yield "Admits only evidence of genuine Intel SGX hardware (Intel SGX Root CA)."
    yield f"It is in force from {_day(policy.created)} until {_day(policy.expires)}."
    for identity in policy.identities:
        yield _explain_identity(identity)
    yield "Debug enclaves, and enclaves that may use the provisioning or launch keys, are never admitted."
    tcb = policy.tcb
    yield f"The platform's TCB status must be {_or(tcb.allowed_statuses)}."
    if tcb.grace_seconds:
        yield f"An allowed out-of-date status counts for {_span(tcb.grace_seconds)} after the level's date."
    if tcb.accepted_advisories:
        yield f"Of Intel's security advisories these may apply: {', '.join(tcb.accepted_advisories)}."
    else:
        yield "No security advisory may apply to the platform."
    if tcb.rejected_advisories:
        yield f"These advisories are refused in any case: {', '.join(tcb.rejected_advisories)}."
    flags = [
        name
        for name, allowed in (
            ("dynamic (multi-package) platforms", tcb.allow_dynamic_platform),
            ("platforms with cached keys", tcb.allow_cached_keys),
            ("hyper-threading", tcb.allow_smt),
        )
        if allowed
    ]
    if flags:
        yield f"Also admitted: {', '.join(flags)}."
    if tcb.fmspc:
        yield f"Only processors with FMSPC {_or(tcb.fmspc)} are admitted."
    if tcb.ppid_allow or tcb.platform_instance_allow:
        yield f"Only {len(tcb.ppid_allow) + len(tcb.platform_instance_allow)} listed machines are admitted."
    if tcb.ppid_deny or tcb.platform_instance_deny:
        yield f"{len(tcb.ppid_deny) + len(tcb.platform_instance_deny)} listed machines are refused."
    if tcb.min_tcb_eval_data_number:
        yield f"TCB evaluation data must have number {tcb.min_tcb_eval_data_number} or higher."
    if not tcb.equal_eval_data_numbers:
        yield "TCB info and QE identity may come from different TCB evaluations."
    yield (
        f"The platform's collateral may be at most {_span(policy.collateral.max_age_seconds)} old"
        + (", and never older than what was seen before." if policy.collateral.monotonic else ".")
    )
    if policy.collateral.min_issue_date:
        yield f"Collateral issued before {_day(policy.collateral.min_issue_date)} is refused."
    yield f"A challenge must be answered within {_span(policy.freshness.nonce_ttl_seconds)}, once."
    release = policy.release
    if not release.keys:
        yield "No key is released."
        return
    keys = "every key this policy guards" if "*" in release.keys else ", ".join(release.keys)
    limits = [f"for {_span(release.ttl_seconds)} after attestation"]
    if release.roles:
        limits.append(f"to {_or(release.roles)} enclaves")
    if release.audiences:
        limits.append(f"on evidence made for {_or(release.audiences)}")
    if release.max_uses is not None:
        limits.append(f"at most {release.max_uses} times in a session")
    if release.max_sessions is not None:
        limits.append(f"in at most {release.max_sessions} sessions at a time")
    yield f"Releases {keys}, {', '.join(limits)}."


def _explain_identity(identity: Identity) -> str:
    facts = []
    if identity.mrenclave:
        facts.append("whose measurement is " + _or([m.hex()[:16] + "..." for m in identity.mrenclave]))
    if identity.mrsigner is not None:
        facts.append(f"signed by {identity.mrsigner.hex()[:16]}...")
    if identity.isv_prod_id is not None:
        facts.append(f"of product {identity.isv_prod_id}")
    if identity.min_isv_svn is not None:
        facts.append(f"with security version {identity.min_isv_svn} or higher")
    sentence = f"Admits as {identity.name!r} an enclave {', '.join(facts)}."
    if identity.mrsigner_only:
        sentence += " Any code of that signer is admitted, whatever its measurement."
    return sentence


class _Reader:
    """Turns TOML text into a :class:`Policy`, or into a :class:`PolicyError` with a line."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._text = text

    def policy(self) -> Policy:
        if len(self._text) > MAX_POLICY_BYTES:
            raise PolicyError(f"{self._source}: longer than the {MAX_POLICY_BYTES} bytes a policy may have.")
        try:
            document = tomllib.loads(self._text)
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
            raise PolicyError(f"{self._source}: not TOML: {str(error).partition(chr(10))[0]}.") from None
        top = _Table(self, "", document)
        schema = top.integer("schema", required=True, low=0)
        if schema != SCHEMA:
            raise self.error(
                f"schema {schema} is not known; this version of sealbook reads schema {SCHEMA}", "", "schema"
            )
        policy = Policy(
            id=top.name("id"),
            version=top.integer("version", default=1, low=1),
            created=top.time("created"),
            expires=top.time("expires"),
            tee=top.choice("tee", ("sgx",)),
            trust_root=self._trust_root(top),
            identities=self._identities(top),
            tcb=self._tcb(top.table("tcb")),
            collateral=self._collateral(top.table("collateral")),
            freshness=self._freshness(top.table("freshness")),
            release=self._release(top.table("release")),
        )
        top.finish()
        if policy.expires <= policy.created:
            raise self.error("it expires before it is created", "", "expires")
        return policy

    def error(self, cause: str, table: str, key: str | None) -> PolicyError:
        line = _line_of(self._text, table, key)
        where = f"{self._source}, line {line}" if line else self._source
        return PolicyError(f"{where}: {cause}.")

    def _trust_root(self, top: _Table) -> TrustRoot:
        value = top.take("trust_root")
        if value is None:
            raise self.error(
                'trust_root is missing; write trust_root = "intel" or a [trust_root] table that pins a '
                "simulated root",
                "",
                None,
            )
        if value == "intel":
            return INTEL_ROOT
        if not isinstance(value, dict):
            raise self.error('trust_root is "intel" or a table with a certificate', "", "trust_root")
        table = _Table(self, "trust_root", value)
        text = table.string("certificate", required=True)
        declared = table.boolean("simulated", default=False)
        table.finish()
        try:
            (certificate,) = x509.load_pem_x509_certificates(text.encode())
        except ValueError:
            raise self.error(
                "the root certificate is not one PEM certificate", "trust_root", "certificate"
            ) from None
        der = certificate.public_bytes(serialization.Encoding.DER)
        if _is_intels(certificate):
            if declared:
                raise self.error(
                    "this is Intel's root, which is not simulated; remove `simulated`",
                    "trust_root",
                    "simulated",
                )
            return INTEL_ROOT
        if not declared:
            raise self.error(
                "this root is not Intel's; only a simulated platform has another one, and that must be said "
                "with simulated = true",
                "trust_root",
                "certificate",
            )
        problem = _unfit_root(certificate)
        if problem:
            raise self.error(problem, "trust_root", "certificate")
        return TrustRoot("simulated", der)

    def _identities(self, top: _Table) -> tuple[Identity, ...]:
        value = top.take("identity")
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self.error("no enclave is admitted; add at least one [[identity]]", "", "identity")
        identities = tuple(
            self._identity(_Table(self, "identity", item, number)) for number, item in enumerate(value)
        )
        names = [identity.name for identity in identities]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise self.error(f"the name {name!r} is used twice", f"identity#{number}", "name")
        return identities

    def _identity(self, table: _Table) -> Identity:
        identity = Identity(
            name=table.name("name"),
            mrenclave=tuple(bytes.fromhex(x) for x in table.hexes("mrenclave", 32)),
            mrsigner=table.hex("mrsigner", 32),
            isv_prod_id=table.optional_integer("isv_prod_id", high=0xFFFF),
            min_isv_svn=table.optional_integer("min_isv_svn", high=0xFFFF),
            mrsigner_only=table.boolean("mrsigner_only", default=False),
            attributes_mask=table.hex("attributes_mask", 16) or bytes(16),
            attributes_value=table.hex("attributes_value", 16) or bytes(16),
            misc_select_mask=table.integer("misc_select_mask", default=0, high=0xFFFFFFFF),
            misc_select_value=table.integer("misc_select_value", default=0, high=0xFFFFFFFF),
            config_id=table.hex("config_id", 64) or bytes(64),
        )
        table.finish()
        if identity.mrsigner_only:
            if identity.mrenclave:
                raise table.error("mrsigner_only contradicts mrenclave; keep one of them", "mrsigner_only")
            if identity.mrsigner is None or identity.isv_prod_id is None or identity.min_isv_svn is None:
                raise table.error(
                    "mrsigner_only needs mrsigner, isv_prod_id and min_isv_svn", "mrsigner_only"
                )
        elif not identity.mrenclave:
            raise table.error(
                "mrenclave is missing; to admit every enclave of a signer say mrsigner_only = true", "name"
            )
        if _outside(identity.attributes_value, identity.attributes_mask):
            raise table.error("attributes_value has bits outside attributes_mask", "attributes_value")
        if identity.misc_select_value & ~identity.misc_select_mask:
            raise table.error("misc_select_value has bits outside misc_select_mask", "misc_select_value")
        flags_mask = int.from_bytes(identity.attributes_mask[:8], "little") & BASE_ATTRIBUTES_MASK
        flags_value = int.from_bytes(identity.attributes_value[:8], "little")
        if (flags_value ^ BASE_ATTRIBUTES_VALUE) & flags_mask:
            raise table.error(
                "it asks for a debug, uninitialised or 32-bit enclave, or one with the provisioning or launch "
                "key, which is never admitted",
                "attributes_value",
            )
        return identity

    def _tcb(self, table: _Table) -> TcbRules:
        rules = TcbRules(
            allowed_statuses=table.choices("allowed_statuses", TCB_STATUSES, default=("UpToDate",)),
            accepted_advisories=table.strings("accepted_advisories"),
            rejected_advisories=table.strings("rejected_advisories"),
            grace_seconds=table.integer("grace_seconds", default=0),
            min_tcb_eval_data_number=table.integer("min_tcb_eval_data_number", default=0, high=2**31),
            equal_eval_data_numbers=table.boolean("equal_eval_data_numbers", default=True),
            sgx_types=table.integers("sgx_types", default=(0, 1, 2), high=255),
            allow_dynamic_platform=table.boolean("allow_dynamic_platform", default=False),
            allow_cached_keys=table.boolean("allow_cached_keys", default=False),
            allow_smt=table.boolean("allow_smt", default=False),
            fmspc=table.hexes("fmspc", 6),
            ppid_allow=table.hexes("ppid_allow", 16),
            ppid_deny=table.hexes("ppid_deny", 16),
            platform_instance_allow=table.hexes("platform_instance_allow", 16),
            platform_instance_deny=table.hexes("platform_instance_deny", 16),
        )
        table.finish()
        if not rules.allowed_statuses:
            raise table.error("no TCB status is allowed, so nothing could pass", "allowed_statuses")
        return rules

    def _collateral(self, table: _Table) -> CollateralRules:
        rules = CollateralRules(
            max_age_seconds=table.integer("max_age_seconds", default=30 * _DAY, low=1),
            min_issue_date=table.optional_time("min_issue_date"),
            monotonic=table.boolean("monotonic", default=True),
        )
        table.finish()
        return rules

    def _freshness(self, table: _Table) -> FreshnessRules:
        rules = FreshnessRules(
            nonce_ttl_seconds=table.integer("nonce_ttl_seconds", default=60, low=1, high=3600)
        )
        table.finish()
        return rules

    def _release(self, table: _Table) -> ReleaseRules:
        rules = ReleaseRules(
            keys=table.strings("keys"),
            roles=table.strings("roles"),
            audiences=table.strings("audiences"),
            max_uses=table.optional_integer("max_uses", low=1, high=2**31),
            ttl_seconds=table.integer("ttl_seconds", default=12 * 3600, low=1),
            max_sessions=table.optional_integer("max_sessions", low=1, high=2**31),
        )
        table.finish()
        for pattern in rules.keys:
            if "*" in pattern[:-1]:
                raise table.error(f"in {pattern!r} the * may only stand at the end", "keys")
        return rules


class _Table:
    """One TOML table: takes fields out by kind, then refuses what is left."""

    def __init__(
        self, reader: _Reader, name: str, values: Mapping[str, Any], number: int | None = None
    ) -> None:
        self._reader = reader
        self._name = name
        self._place = name if number is None else f"{name}#{number}"
        self._values = dict(values)

    def error(self, cause: str, key: str | None) -> PolicyError:
        return self._reader.error(cause, self._place, key)

    def take(self, key: str) -> Any:
        return self._values.pop(key, None)

    def finish(self) -> None:
        for key in self._values:
            where = f" in [{self._name}]" if self._name else ""
            raise self.error(f"unknown field {key!r}{where}", key)

    def table(self, key: str) -> _Table:
        value = self.take(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(f"{key} is a table, [{key}]", key)
        return _Table(self._reader, key, value)

    def string(self, key: str, *, required: bool = False) -> str:
        value = self.take(key)
        if value is None and required:
            raise self.error(f"{key} is missing", None)
        if not isinstance(value, str):
            raise self.error(f"{key} is a text in quotes", key)
        return value

    def name(self, key: str) -> str:
        value = self.string(key, required=True)
        if not _NAME.fullmatch(value):
            raise self.error(f"{key} has letters, digits, dot, dash and underscore only, at most 64", key)
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.string(key, required=True)
        if value not in choices:
            raise self.error(f"{key} is {_or([repr(c) for c in choices])}, not {value[:40]!r}", key)
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(f"{key} is true or false", key)
        return value

    def optional_integer(self, key: str, *, low: int = 0, high: int = 2**40) -> int | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(f"{key} is a whole number from {low} to {high}", key)
        return value

    def integer(
        self, key: str, *, default: int = 0, required: bool = False, low: int = 0, high: int = 2**40
    ) -> int:
        value = self.optional_integer(key, low=low, high=high)
        if value is None and required:
            raise self.error(f"{key} is missing", None)
        return default if value is None else value

    def integers(self, key: str, *, default: tuple[int, ...], high: int) -> tuple[int, ...]:
        value = self.take(key)
        if value is None:
            return default
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= high for x in value)
        ):
            raise self.error(f"{key} is a list of whole numbers from 0 to {high}", key)
        return tuple(value)

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(x, str) and 0 < len(x) <= 256 for x in value):
            raise self.error(f"{key} is a list of texts in quotes", key)
        return tuple(value)

    def choices(self, key: str, choices: tuple[str, ...], *, default: tuple[str, ...]) -> tuple[str, ...]:
        if key not in self._values:
            return default
        value = self.strings(key)
        for item in value:
            if item not in choices:
                raise self.error(f"{key} has {item[:40]!r}; possible are {', '.join(choices)}", key)
        return value

    def hex(self, key: str, size: int) -> bytes | None:
        if key not in self._values:
            return None
        value = self.string(key)
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", value):
            raise self.error(f"{key} is {2 * size} hexadecimal digits", key)
        return bytes.fromhex(value)

    def hexes(self, key: str, size: int) -> tuple[str, ...]:
        values = self.strings(key)
        for value in values:
            if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", value):
                raise self.error(f"{key} is a list of {2 * size} hexadecimal digits each", key)
        return tuple(value.lower() for value in values)

    def optional_time(self, key: str) -> datetime | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise self.error(f"{key} is a time with zone, such as 2026-11-23T00:00:00Z, without quotes", key)
        return value.astimezone(UTC)

    def time(self, key: str) -> datetime:
        value = self.optional_time(key)
        if value is None:
            raise self.error(f"{key} is missing", None)
        return value


_HEADER_LINE = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(?:#.*)?$")
_KEY_LINE = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*[.=]")


def _line_of(text: str, table: str, key: str | None) -> int | None:
    """Find the line of a field (tomllib does not tell): by header and by ``key =``, or the header itself."""
    name, _, number = table.partition("#")
    wanted = int(number or 0)
    current, seen, header_line = "", -1, None
    for line_number, line in enumerate(text.splitlines(), 1):
        header = _HEADER_LINE.match(line)
        if header:
            current = header.group(1)
            if current == name:
                seen += 1
                if seen == wanted:
                    header_line = line_number
            if key is not None and not name and current.partition(".")[0] == key:
                return line_number
            continue
        here = current == name and (not name or seen == wanted)
        match = _KEY_LINE.match(line)
        if here and key is not None and match and match.group(1) == key:
            return line_number
    return header_line


def _is_intels(certificate: x509.Certificate) -> bool:
    return _spki(certificate) == _spki(INTEL_ROOT.certificate)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _unfit_root(certificate: x509.Certificate) -> str | None:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if not names or SIMULATED_MARK not in str(names[0].value):
        return f"a simulated root's common name must contain {SIMULATED_MARK}, so that nobody takes it for another"
    try:
        key = certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # every way in which a certificate can be unfit has its own exception
        return "the root certificate is not a self-signed certificate authority"
    if not constraints.ca or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        return "the root certificate is not a certificate authority with a P-256 key"
    return None


def _outside(value: bytes, mask: bytes) -> bool:
    return bool(int.from_bytes(value, "little") & ~int.from_bytes(mask, "little"))


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


def _or(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} or {last}" if most else last


def _day(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d}"


def _span(seconds: int) -> str:
    span = timedelta(seconds=seconds)
    if seconds % _DAY == 0:
        return f"{span.days} day{'s' if span.days != 1 else ''}"
    if seconds % 3600 == 0:
        return f"{seconds // 3600} hour{'s' if seconds != 3600 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
