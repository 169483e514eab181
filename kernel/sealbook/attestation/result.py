"""The attestation result: what was established about the evidence, and why it was refused if it was.

Words of RFC 9334 (RATS); trustworthiness claims and tiers of draft-ietf-rats-ar4si;
:meth:`AttestationResult.to_ear` writes the claims of draft-ietf-rats-ear-04.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sealbook.attestation import intel
from sealbook.attestation.policy import UNATTESTED_TEES
from sealbook.errors import InputError, RefusedError

if TYPE_CHECKING:
    from sealbook.attestation.collateral import Collateral
    from sealbook.attestation.policy import Policy

#: EAR profile of results about hardware.
EAR_PROFILE = "tag:ietf.org,2026:rats/ear#04"
#: EAR profile of results about simulated evidence: a consumer that does not know it must reject it.
SIMULATED_EAR_PROFILE = "urn:sealbook:ear:simulated:1"
#: EAR profile of results without any evidence, for the same reason: "none" must not pass for "no objection".
UNATTESTED_EAR_PROFILE = "urn:sealbook:ear:not-attested:1"
VERIFIER_DEVELOPER = "urn:sealbook:verifier"

# AR4SI trustworthiness values (tiers: none -1..1, affirming 2..31, warning 32..95, contraindicated 96..127).
NONE = 0
AFFIRMING = 2
WARNING = 32
UNRECOGNIZED = 33
CONTRAINDICATED = 96
UNRECOGNIZED_HARDWARE = 97
CRYPTO_FAILED = 99


class Judged(NamedTuple):
    """What a verdict is about, for who shows a person how it came about."""

    evidence: bytes
    collateral: Collateral | None
    policy: Policy


class AttestationRefusedError(RefusedError):
    """The evidence was not accepted; the sentence says why and what to do.

    Attributes
    ----------
    result
        The whole :class:`AttestationResult`.
    judged
        What was refused, where the broker refused to open a session for it; else None.
    """

    judged: Judged | None = None

    def __init__(self, message: str, result: AttestationResult) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Refusal:
    """One reason against the evidence.

    Attributes
    ----------
    check
        Short stable name of the check, for programs: ``"tcb-status"``.
    reason
        A plain sentence: what is wrong.
    remedy
        A plain sentence: what to do.
    """

    check: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class TrustVector:
    """AR4SI trustworthiness vector; 0 means that no claim is made."""

    instance_identity: int = NONE
    configuration: int = NONE
    executables: int = NONE
    file_system: int = NONE
    hardware: int = NONE
    runtime_opaque: int = NONE
    storage_opaque: int = NONE
    sourced_data: int = NONE

    @property
    def status(self) -> str:
        """The worst tier of all claims: the EAR status."""
        worst = max((abs(value) if value < 0 else value) for value in asdict(self).values())
        return tier(worst)


def tier(value: int) -> str:
    """Name the AR4SI tier of one trustworthiness value."""
    if -1 <= value <= 1:
        return "none"
    if value < 32:
        return "affirming"
    return "warning" if value < 96 else "contraindicated"


@dataclass(frozen=True)
class PlatformFacts:
    """What the verified collateral says about the machine; empty strings where it says nothing."""

    fmspc: str = ""
    ppid: str = ""
    platform_instance_id: str = ""
    sgx_type: int | None = None
    dynamic_platform: str = ""
    cached_keys: str = ""
    smt_enabled: str = ""
    tcb_date: datetime | None = None
    tcb_eval_data_number: int | None = None
    qe_tcb_eval_data_number: int | None = None
    pck_crl_number: int | None = None
    root_crl_number: int | None = None


@dataclass(frozen=True)
class AttestationResult:
    """What the verifier found.

    Attributes
    ----------
    status
        ``"affirming"``, ``"warning"``, ``"contraindicated"`` or ``"none"``. Simulated evidence is always
        contraindicated: nobody who reads only this word takes it for hardware. ``"none"`` stands exactly
        where the policy admits a kernel that is not attested: nothing is claimed about it.
    accepted
        Whether the policy admits the evidence. Exactly when there are no refusals. That alone proves
        nothing: see :attr:`attested`.
    root
        ``"intel"``, ``"simulated"`` or ``"none"``: the root the policy names.
    identity
        Name of the policy's entry that admits the enclave; empty when the evidence was refused, or there
        is none.
    bound
        Whether all 64 bytes of REPORTDATA were compared with expected ones.
    times
        Aware datetimes in UTC.
    tee
        What the policy admits: ``"sgx"``, or the name of an environment without attestation.

    Raises
    ------
    ValueError
        The parts contradict each other, for example a simulated root without the label.
    """

    status: str
    accepted: bool
    trust_vector: TrustVector
    mrenclave: str
    mrsigner: str
    isv_prod_id: int | None
    isv_svn: int | None
    tcb_status: str
    advisories: tuple[str, ...]
    root: str
    root_fingerprint: str
    simulated: bool
    platform: PlatformFacts
    verified_at: datetime
    collateral_expires_at: datetime | None
    policy_id: str
    policy_digest: str
    identity: str
    report_data: str
    evidence_id: str
    bound: bool = False
    refusals: tuple[Refusal, ...] = ()
    tee: str = "sgx"

    def __post_init__(self) -> None:
        if self.root not in ("intel", "simulated", "none"):
            raise ValueError("the root is intel, simulated or none")
        if (self.root == "intel") != (self.root_fingerprint == intel.ROOT_CA_FINGERPRINT):
            raise ValueError("exactly the root with Intel's fingerprint is Intel's")
        if self.simulated != (self.root == "simulated"):
            raise ValueError("a result about simulated evidence must say so, and no other may")
        if (self.root == "none") != (self.tee in UNATTESTED_TEES) or (self.root == "none") == bool(
            self.root_fingerprint
        ):
            raise ValueError("exactly a kernel that is not attested has no root")
        if self.root == "none" and self._claims_something():
            raise ValueError("nothing can be claimed about a kernel that is not attested")
        if self.accepted == bool(self.refusals):
            raise ValueError("evidence is accepted exactly when nothing is refused")
        if self.status != (self.trust_vector.status if self.accepted else "contraindicated"):
            raise ValueError("the status does not follow from the trust vector and the decision")
        if self.attested != bool(self.identity):
            raise ValueError("exactly accepted evidence has an identity")
        if self.attested and (not self.mrenclave or self.status == "none"):
            raise ValueError("accepted evidence has a measurement and a status")
        if self.accepted and not self.evidence_id:
            raise ValueError("what was accepted has an id")
        if self.simulated and self.accepted and self.status != "contraindicated":
            raise ValueError("simulated evidence is contraindicated")
        for when in (self.verified_at, self.collateral_expires_at, self.platform.tcb_date):
            if when is not None and when.tzinfo is None:
                raise ValueError("times are aware")

    def _claims_something(self) -> bool:
        return (
            self.trust_vector != TrustVector()
            or self.platform != PlatformFacts()
            or bool(self.mrenclave or self.mrsigner or self.tcb_status or self.advisories)
            or any(fact is not None for fact in (self.isv_prod_id, self.isv_svn, self.collateral_expires_at))
        )

    @property
    def attested(self) -> bool:
        """Whether evidence was accepted: of hardware or, if it says so, :attr:`simulated`."""
        return self.accepted and self.root != "none"

    def require(self) -> AttestationResult:
        """Return the result if the policy admits what it was given, also if that is no evidence.

        Raises
        ------
        AttestationRefusedError
            Otherwise; one sentence with the first refusal and how many more there are.
        """
        if self.accepted:
            return self
        first, *others = self.refusals
        more = f" (and {len(others)} more reason{'s' if len(others) > 1 else ''})" if others else ""
        reason = first.reason.rstrip(".")
        remedy = first.remedy[:1].lower() + first.remedy[1:].rstrip(".")
        raise AttestationRefusedError(f"{reason}{more}; {remedy}.", self)

    @property
    def label(self) -> str:
        """``"attested"``, ``"simulated"``, ``"not attested"`` or ``"refused"``."""
        if not self.accepted:
            return "refused"
        return {"intel": "attested", "simulated": "simulated", "none": "not attested"}[self.root]

    def summary(self) -> str:
        """Return one line for a person; it contains "simulated" or "not attested" whenever that is so."""
        if not self.accepted:
            count = len(self.refusals)
            roots = {
                "intel": "Intel root",
                "simulated": "simulated root",
                "none": "for kernels that are not attested",
            }
            where = roots[self.root]
            return f"Refused under policy {self.policy_id!r} ({where}): {self.refusals[0].reason}" + (
                f" ({count - 1} more)" if count > 1 else ""
            )
        if not self.attested:
            return (
                f"This kernel is not attested: it runs in {self.tee}, and nothing proves what it runs or "
                f"protects it from its host; policy {self.policy_id!r} admits that by name"
            )
        measured = f"measurement {self.mrenclave[:16]}..."
        where = "simulated enclave (no hardware protection)" if self.simulated else "genuine SGX enclave"
        return (
            f"Attested {where}, {measured}, admitted as {self.identity!r} by policy "
            f"{self.policy_id!r}, TCB {self.tcb_status}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form; :meth:`from_dict` reads it."""
        # What a program needs that reads only this. It follows from the rest, which from_dict insists on.
        plain: dict[str, Any] = _plain(asdict(self)) | {"attested": self.attested}
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttestationResult:
        """Rebuild a result, with the same cross-checks as a new one.

        Raises
        ------
        InputError
            A field is missing, unknown or of the wrong kind, or the fields contradict each other.
        """
        try:
            return _build(cls, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"This is not an attestation result ({error}).") from None

    def to_ear(self) -> dict[str, Any]:
        """Return the claims of an EAT Attestation Result (draft-ietf-rats-ear-04), unsigned."""
        from sealbook import __version__

        vector = {
            name.replace("_", "-"): value
            for name, value in asdict(self.trust_vector).items()
            if value != NONE
        }
        return {
            "eat_profile": _PROFILES[self.root],
            "iat": int(self.verified_at.timestamp()),
            "ear.verifier-id": {"build": f"sealbook {__version__}", "developer": VERIFIER_DEVELOPER},
            "submods": {
                "kernel": {
                    "ear.status": self.status,
                    # Optional in the draft, and not empty where it stands.
                    **({"ear.trustworthiness-vector": vector} if vector else {}),
                    "ear.appraisal-policy-id": f"{self.policy_id}:sha256:{self.policy_digest}",
                    "sealbook.accepted": self.accepted,
                    "sealbook.attested": self.attested,
                    "sealbook.tee": self.tee,
                    "sealbook.simulated": self.simulated,
                    "sealbook.root": self.root_fingerprint,
                    "sealbook.evidence": {
                        "id": self.evidence_id,
                        "mrenclave": self.mrenclave,
                        "mrsigner": self.mrsigner,
                        "isv-prod-id": self.isv_prod_id,
                        "isv-svn": self.isv_svn,
                        "report-data": self.report_data,
                        "bound": self.bound,
                        "tcb-status": self.tcb_status,
                        "advisories": list(self.advisories),
                    },
                    "sealbook.refusals": [asdict(refusal) for refusal in self.refusals],
                }
            },
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value


_SCALARS: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "accepted": bool,
    "mrenclave": str,
    "mrsigner": str,
    "isv_prod_id": (int, type(None)),
    "isv_svn": (int, type(None)),
    "tcb_status": str,
    "root": str,
    "root_fingerprint": str,
    "simulated": bool,
    "policy_id": str,
    "policy_digest": str,
    "identity": str,
    "report_data": str,
    "evidence_id": str,
    "bound": bool,
    "tee": str,
}

#: Years in which a time may lie. At the ends of the calendar another zone, or a margin, has no date.
_YEARS = range(2000, 9999)

_PROFILES = {"intel": EAR_PROFILE, "simulated": SIMULATED_EAR_PROFILE, "none": UNATTESTED_EAR_PROFILE}


def _build(cls: type[AttestationResult], data: Mapping[str, Any]) -> AttestationResult:
    if not isinstance(data["attested"], bool):
        raise TypeError("attested is of the wrong kind")
    attested = data["attested"]
    data = {name: value for name, value in data.items() if name != "attested"}
    _same_fields(data, AttestationResult)
    for name, kind in _SCALARS.items():
        # Python takes True for 1, and canonical JSON does not.
        if not isinstance(data[name], kind) or (kind is not bool and isinstance(data[name], bool)):
            raise TypeError(f"{name} is of the wrong kind")
    vector = data["trust_vector"]
    _same_fields(vector, TrustVector)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in vector.values()):
        raise TypeError("trust_vector has whole numbers")
    platform = dict(data["platform"])
    _same_fields(platform, PlatformFacts)
    platform["tcb_date"] = _time(platform["tcb_date"])
    if any(isinstance(value, bool) for value in platform.values()):
        raise TypeError("platform has texts and whole numbers")
    refusals = []
    for refusal in data["refusals"]:
        _same_fields(refusal, Refusal)
        if not all(isinstance(value, str) for value in refusal.values()):
            raise TypeError("a refusal is made of sentences")
        refusals.append(Refusal(**refusal))
    if not all(isinstance(advisory, str) for advisory in data["advisories"]):
        raise TypeError("advisories are names")
    verified_at = _time(data["verified_at"])
    if verified_at is None:
        raise TypeError("verified_at is missing")
    result = cls(
        **{name: data[name] for name in _SCALARS},
        trust_vector=TrustVector(**vector),
        advisories=tuple(data["advisories"]),
        platform=PlatformFacts(**platform),
        verified_at=verified_at,
        collateral_expires_at=_time(data["collateral_expires_at"]),
        refusals=tuple(refusals),
    )
    if result.attested != attested:
        raise ValueError("whether it is attested does not follow from the rest")
    return result


def _same_fields(data: Mapping[str, Any], kind: type) -> None:
    expected = {part.name for part in fields(kind)}
    given = set(data)
    if given != expected:
        odd = sorted(map(str, given ^ expected))[0][:40]
        raise KeyError(odd)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("times have a zone")
    try:
        when = when.astimezone(UTC)
    except OverflowError:
        raise ValueError("times have a date in UTC") from None
    if when.year not in _YEARS:
        raise ValueError(f"times are of the years {_YEARS[0]} to {_YEARS[-1]}")
    return when
