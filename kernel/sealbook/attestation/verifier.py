"""The verifier: one piece of evidence, one policy, one moment, one result.

A quote is accepted when it parses strictly (:mod:`.quote`), every signature and TCB comparison holds
(:mod:`.signatures`, dcap-qvl), and no check of :mod:`.checks` and :mod:`.chains` refuses it. Whatever goes
wrong on the way, also an error in this code, is a refusal.

A kernel that is not attested hands in no quote (:mod:`.unattested`). Only a policy that names its kind
accepts that, and such a policy accepts nothing else; the result then claims nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
from sealbook.attestation.unattested import UnattestedStatement, is_statement
from sealbook.errors import RefusedError

if TYPE_CHECKING:
    import dcap_qvl


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
        # Intel's root is dcap-qvl's own copy. None where no quote is ever accepted.
        import dcap_qvl

        self._dcap: dcap_qvl.QuoteVerifier | None = None
        if policy.trust_root.kind == "intel":
            self._dcap = dcap_qvl.QuoteVerifier()
        elif policy.trust_root.kind == "simulated":
            self._dcap = dcap_qvl.QuoteVerifier(policy.trust_root.der)

    @property
    def policy(self) -> Policy:
        """The policy evidence is appraised under."""
        return self._policy

    def verify(
        self,
        evidence: bytes,
        collateral: Collateral | None,
        *,
        now: datetime,
        expected_report_data: bytes | None = None,
    ) -> AttestationResult:
        """Appraise a quote, or the statement of a kernel that is not attested.

        Parameters
        ----------
        evidence
            Untrusted bytes.
        collateral
            Untrusted; its signatures are verified. Needed for a quote under a policy that asks for one.
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
            The caller's own arguments: `now` is not aware, the expected report data not 64 bytes, or there
            is no collateral for a quote.
        """
        if now.tzinfo is None:
            raise ValueError("now must be an aware datetime")
        if expected_report_data is not None and len(expected_report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(expected_report_data)}")
        now = now.astimezone(UTC)
        if is_statement(evidence) or not self._policy.attested:
            return self._judge_without_evidence(evidence, now, expected_report_data)
        if collateral is None:
            raise ValueError("a quote is appraised with its platform's collateral")
        parsed: Quote | None = None
        try:
            parsed = Quote.parse(evidence)
            claims, refusals = self._appraise(parsed, collateral, now, expected_report_data)
            return self._result(parsed, claims, refusals, now, bound=expected_report_data is not None)
        except RefusedError as error:
            check = "collateral-format" if parsed else "quote-format"
            refusal = Refusal(check, str(error), "Ask for new evidence; this is not what the platform made.")
        except Exception as error:  # fail closed: whatever it is, it is no reason to accept
            refusal = _internal(error)
        return self._result(parsed, None, [refusal], now, bound=False)

    def _judge_without_evidence(
        self, given: bytes, now: datetime, expected: bytes | None
    ) -> AttestationResult:
        """Judge what is not a quote, or is one under a policy that wants none."""
        statement: UnattestedStatement | None = None
        try:
            if is_statement(given):
                statement = UnattestedStatement.parse(given)
            else:
                Quote.parse(given)
            refusals = checks.run_without_evidence(statement, self._policy, now, expected)
        except RefusedError as error:
            refusals = [Refusal("evidence-format", str(error), "Start the kernel again.")]
        except Exception as error:  # fail closed, as above
            refusals = [_internal(error)]
        return self._describe(
            None,
            None,
            refusals,
            now,
            # Of hardware nothing is known; under a policy for kernels without any, nothing is claimed.
            vector=TrustVector(hardware=UNRECOGNIZED_HARDWARE) if self._policy.attested else TrustVector(),
            bound=statement is not None and expected is not None,
            statement=statement,
        )

    def _appraise(
        self, quote: Quote, collateral: Collateral, now: datetime, expected: bytes | None
    ) -> tuple[VerifiedClaims | None, list[Refusal]]:
        tcb_info, qe_identity = collateral.statement("tcb_info"), collateral.statement("qe_identity")
        if self._dcap is None:
            raise RefusedError("The policy names no root of trust; use one that does.")
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
        listed = quote is not None and checks.matching_identity(quote.report, self._policy) is not None
        vector = self._vector(quote, claims, refusals, listed=listed)
        return self._describe(quote, claims, refusals, now, vector=vector, bound=bound)

    def _describe(
        self,
        quote: Quote | None,
        claims: VerifiedClaims | None,
        refusals: list[Refusal],
        now: datetime,
        *,
        vector: TrustVector,
        bound: bool,
        statement: UnattestedStatement | None = None,
    ) -> AttestationResult:
        policy = self._policy
        report = quote.report if quote else None
        identity = checks.matching_identity(report, policy) if report else None
        named = quote or statement
        report_data = report.report_data if report else statement.report_data if statement else b""
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
            report_data=report_data.hex(),
            evidence_id=named.identity if named else "",
            bound=bound,
            refusals=tuple(refusals),
            tee=policy.tee,
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


def _internal(error: Exception) -> Refusal:
    return Refusal(
        "internal",
        f"The evidence could not be appraised because of an internal error ({type(error).__name__}).",
        "Report this with the quote; do not trust the evidence.",
    )
