"""The facts dcap-qvl verified about a quote and its platform, typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealbook.attestation.collateral_memory import CollateralAge
from sealbook.attestation.result import PlatformFacts

if TYPE_CHECKING:
    import dcap_qvl


@dataclass(frozen=True)
class TcbLevel:
    """The level of Intel's list that a platform or a quoting enclave reaches."""

    status: str
    date: datetime
    advisories: tuple[str, ...]


@dataclass(frozen=True)
class VerifiedClaims:
    """What :meth:`dcap_qvl.QuoteVerifier.verify_with_policy` returns, as far as it is used here.

    Attributes
    ----------
    status
        The worse of the platform's and the quoting enclave's.
    expires_at
        When the first part of the collateral (or a certificate) expires.
    """

    status: str
    advisories: tuple[str, ...]
    platform_level: TcbLevel
    qe_level: TcbLevel
    expires_at: datetime
    platform: PlatformFacts

    @classmethod
    def read(cls, claims: dcap_qvl.QuoteClaims) -> VerifiedClaims:
        """Read dcap-qvl's JSON; every field that is used must be there."""
        document = json.loads(claims.to_json())
        tcb, platform, qe = document["tcb"], document["platform"], document["qe"]
        pck = platform["pck"]
        platform_level, qe_level = _level(platform["tcb_level"]), _level(qe["tcb_level"])
        advisories = {*tcb["advisory_ids"], *platform_level.advisories, *qe_level.advisories}
        return cls(
            status=tcb["status"],
            advisories=tuple(sorted(advisories)),
            platform_level=platform_level,
            qe_level=qe_level,
            expires_at=datetime.fromtimestamp(document["earliest_expiration_date"], UTC),
            platform=PlatformFacts(
                fmspc=bytes(pck["fmspc"]).hex(),
                ppid=bytes(pck["ppid"]).hex(),
                platform_instance_id=bytes(pck["platform_instance_id"] or b"").hex(),
                sgx_type=pck["sgx_type"],
                dynamic_platform=pck["dynamic_platform"],
                cached_keys=pck["cached_keys"],
                smt_enabled=pck["smt_enabled"],
                tcb_date=platform_level.date,
                tcb_eval_data_number=tcb["eval_data_number"],
                qe_tcb_eval_data_number=qe["tcb_eval_data_number"],
                pck_crl_number=platform["pck_crl_num"],
                root_crl_number=platform["root_ca_crl_num"],
            ),
        )

    def age(self, tcb_info: dict[str, Any], qe_identity: dict[str, Any]) -> CollateralAge:
        """Return how new the verified collateral is."""
        facts = self.platform
        return CollateralAge(
            tcb_info_issued=_seconds(tcb_info["issueDate"]),
            qe_identity_issued=_seconds(qe_identity["issueDate"]),
            tcb_eval_data_number=int(tcb_info["tcbEvaluationDataNumber"]),
            qe_eval_data_number=int(qe_identity["tcbEvaluationDataNumber"]),
            pck_crl_number=facts.pck_crl_number or 0,
            root_crl_number=facts.root_crl_number or 0,
        )


def _level(level: dict[str, Any]) -> TcbLevel:
    return TcbLevel(
        status=level["tcbStatus"],
        date=datetime.fromisoformat(level["tcbDate"]),
        advisories=tuple(level.get("advisoryIDs") or ()),
    )


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
