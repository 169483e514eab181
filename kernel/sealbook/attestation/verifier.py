"""The verifier: one quote, one policy, one moment, one result.

A quote is accepted when it parses strictly (:mod:`.quote`), every signature and TCB comparison holds
(:mod:`.signatures`, dcap-qvl), and no check of :mod:`.checks` and :mod:`.chains` refuses it. Whatever goes
wrong on the way, also an error in this code, is a refusal.
"""

from __future__ import annotations

from datetime import UTC, datetime

import dcap_qvl

from sealbook.attestation import checks
from sealbook.attestation.claims import VerifiedClaims
from sealbook.attestation.collateral import Collateral
from sealbook.attestation.collateral_memory import CollateralMemory
from sealbook.attestation.policy import Policy
from sealbook.attestation.quote import REPORT_DATA_BYTES, Quote
from sealbook.attestation.result import (
    AFFIRMING,
    CONTRAINDICATED,
    CRYPTO_FAILED,
    NONE,
    UNRECOGNIZED,
    UNRECOGNIZED_HARDWARE,
    WARNING,
    AttestationResult,
    PlatformFacts,
    Refusal,
    TrustVector,
)
from sealbook.attestation.signatures import CHAIN, DCAP_POLICY, verify_signatures
from sealbook.errors import RefusedError

_SUSPECT = "Do not trust this evidence; attest again, and if it stays so, treat the platform as compromised."


class Verifier:
    """Appraises evidence under one policy. Safe to share between threads.

    Parameters
    ----------
    policy
        What is good enough.
    memory
        Remembers collateral to see a rollback (attack case 53); without it none can be seen.
    """

    def __init__(self, policy: Policy, *, memory: CollateralMemory | None = None) -> None:
        self._policy = policy
        self._memory = memory
        root = policy.trust_root
        self._dcap = dcap_qvl.QuoteVerifier(root.der) if root.simulated else dcap_qvl.QuoteVerifier()

    @property
    def policy(self) -> Policy:
        """The policy evidence is appraised under."""
        return self._policy

    def verify(
        self,
        quote: bytes,
        collateral: Collateral,
        *,
        now: datetime,
        expected_report_data: bytes | None = None,
    ) -> AttestationResult:
        """Appraise a quote.

        Parameters
        ----------
        quote
            Untrusted bytes.
        collateral
            Untrusted; its signatures are verified.
        now
            Aware. The only clock that is used, for certificates, collateral and policy alike.
        expected_report_data
            64 bytes that REPORTDATA must equal. Without them the result says ``bound=False`` and proves
            nothing about who is on the other end of a connection.

        Returns
        -------
        AttestationResult
            Accepted or with all refusals that could be determined. Untrusted input never raises.

        Raises
        ------
        ValueError
            The caller's own arguments: `now` is not aware, or the expected report data not 64 bytes.
        """
        if now.tzinfo is None:
            raise ValueError("now must be an aware datetime")
        if expected_report_data is not None and len(expected_report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(expected_report_data)}")
        now = now.astimezone(UTC)
        parsed: Quote | None = None
        try:
            parsed = Quote.parse(quote)
            claims, refusals = self._appraise(parsed, collateral, now, expected_report_data)
            return self._result(parsed, claims, refusals, now, bound=expected_report_data is not None)
        except RefusedError as error:
            check = "collateral-format" if parsed else "quote-format"
            refusal = Refusal(check, str(error), "Ask for new evidence; this is not what the platform made.")
        except Exception as error:  # fail closed: whatever it is, it is no reason to accept
            refusal = Refusal(
                "internal",
                f"The evidence could not be appraised because of an internal error ({type(error).__name__}).",
                "Report this with the quote; do not trust the evidence.",
            )
        return self._result(parsed, None, [refusal], now, bound=False)

    def _appraise(
        self, quote: Quote, collateral: Collateral, now: datetime, expected: bytes | None
    ) -> tuple[VerifiedClaims | None, list[Refusal]]:
        tcb_info, qe_identity = collateral.statement("tcb_info"), collateral.statement("qe_identity")
        claims, signature_refusals = verify_signatures(self._dcap, quote, collateral, self._policy, now)
        refusals = checks.run(
            checks.Appraisal(
                quote=quote,
                collateral=collateral,
                tcb_info=tcb_info,
                qe_identity=qe_identity,
                policy=self._policy,
                now=now,
                claims=claims,
                expected_report_data=expected,
                memory=self._memory,
            )
        )
        seen = {refusal.check for refusal in refusals}
        for refusal in signature_refusals:
            # dcap-qvl's general words are only worth reading when our own checks found no reason.
            general = refusal.check in (DCAP_POLICY, CHAIN)
            if refusal.check not in seen and not (general and refusals):
                refusals.append(refusal)
        return claims, refusals

    def _result(
        self,
        quote: Quote | None,
        claims: VerifiedClaims | None,
        refusals: list[Refusal],
        now: datetime,
        *,
        bound: bool,
    ) -> AttestationResult:
        policy = self._policy
        report = quote.report if quote else None
        identity = checks.matching_identity(report, policy) if report else None
        vector = self._vector(quote, claims, refusals, listed=identity is not None)
        return AttestationResult(
            status="contraindicated" if refusals else vector.status,
            accepted=not refusals,
            trust_vector=vector,
            mrenclave=report.mrenclave.hex() if report else "",
            mrsigner=report.mrsigner.hex() if report else "",
            isv_prod_id=report.isv_prod_id if report else None,
            isv_svn=report.isv_svn if report else None,
            tcb_status=claims.status if claims else "",
            advisories=claims.advisories if claims else (),
            root=policy.trust_root.kind,
            root_fingerprint=policy.trust_root.fingerprint,
            simulated=policy.simulated,
            platform=claims.platform if claims else PlatformFacts(),
            verified_at=now,
            collateral_expires_at=claims.expires_at if claims else None,
            policy_id=policy.id,
            policy_digest=policy.digest,
            identity=identity.name if identity and not refusals else "",
            report_data=report.report_data.hex() if report else "",
            evidence_id=quote.identity if quote else "",
            bound=bound,
            refusals=tuple(refusals),
        )

    def _vector(
        self, quote: Quote | None, claims: VerifiedClaims | None, refusals: list[Refusal], *, listed: bool
    ) -> TrustVector:
        if quote is None or claims is None:
            return TrustVector(hardware=CRYPTO_FAILED)
        refused = {refusal.check for refusal in refusals}
        simulated = self._policy.simulated
        if refused & checks.BROKEN_ENDORSEMENT:
            hardware = CRYPTO_FAILED
        elif simulated:
            hardware = UNRECOGNIZED_HARDWARE
        elif refused & {"tcb-status", "tcb-grace", "advisory", "platform", "platform-denied", "dcap-policy"}:
            hardware = CONTRAINDICATED
        else:
            hardware = AFFIRMING if claims.status == "UpToDate" else WARNING
        configured = quote.report.initialized and quote.report.mode64 and not quote.report.debug
        instance = NONE
        if "report-data" in refused:
            instance = CRYPTO_FAILED
        elif self._policy.tcb.ppid_allow:
            instance = CONTRAINDICATED if "platform-denied" in refused else AFFIRMING
        if not configured or "attributes" in refused:
            configuration = CONTRAINDICATED
        else:
            configuration = WARNING if "Configuration" in claims.status else AFFIRMING
        return TrustVector(
            instance_identity=instance,
            configuration=configuration,
            executables=AFFIRMING if listed else UNRECOGNIZED,
            hardware=hardware,
            runtime_opaque=CONTRAINDICATED if simulated or quote.report.debug else AFFIRMING,
        )
