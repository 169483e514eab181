"""Every signature, certificate, revocation and TCB comparison: done by dcap-qvl, said in sentences."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from sealbook.attestation.claims import VerifiedClaims
from sealbook.attestation.collateral import Collateral, MalformedCollateralError
from sealbook.attestation.policy import Policy
from sealbook.attestation.quote import MalformedQuoteError, Quote
from sealbook.attestation.result import Refusal

if TYPE_CHECKING:
    import dcap_qvl


#: What dcap-qvl says of every fault in a chain; our own checks usually know better which it is.
CHAIN = "chain"
#: dcap-qvl admits the signatures but not the platform under the policy.
DCAP_POLICY = "dcap-policy"
_RENEW = "Fetch the platform's current collateral and verify again."
_CLOCK = "Check this machine's clock, then fetch the platform's current collateral."
_SUSPECT = "Do not trust this evidence; attest again, and if it stays so, treat the platform as compromised."

#: dcap-qvl 0.7 has no error codes: patterns of its messages, what they mean and what to do.
_SENTENCES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"^Debug mode",
        "debug",
        "The enclave runs in debug mode, so the host can read its memory.",
        "Run the enclave without debug.",
    ),
    (
        r"issue date is in the future",
        "collateral-time",
        "The collateral was issued after the present time.",
        _CLOCK,
    ),
    (
        r"CrlExpired|Identity expired|TCBInfo expired|Collateral expired",
        "collateral-time",
        "The platform's collateral has expired.",
        _RENEW,
    ),
    (
        r"CertRevoked|TCB status.*Revoked|[Rr]evoked",
        "revoked",
        "A certificate or TCB level of the platform has been revoked.",
        _SUSPECT,
    ),
    (r"CRL|Crl", "revocation-list", "A revocation list is missing, forged or from another issuer.", _RENEW),
    (
        r"QE report hash",
        "qe-binding",
        "The quoting enclave does not vouch for the key that signed the quote.",
        _SUSPECT,
    ),
    (
        r"qe_report in quote",
        "qe-signature",
        "The quoting enclave's report is not signed by the platform.",
        _SUSPECT,
    ),
    (
        r"ISV enclave report signature",
        "signature",
        "The quote's signature does not match its content.",
        _SUSPECT,
    ),
    (
        r"F(?i:mspc)",
        "fmspc",
        "The collateral is for another kind of processor.",
        "Fetch the collateral for the quote's FMSPC.",
    ),
    (
        r"[Ii]dentity.*[Ss]ignature|[Ss]ignature.*[Ii]dentity|tcb_?info.*signature|[Ss]ignature.*tcb_?info",
        "collateral-signature",
        "The collateral was changed after it was signed.",
        _RENEW,
    ),
    (
        r"^QE |QE [Ii]dentity|qe_identity|QeIdentity",
        "quoting-enclave",
        "The quoting enclave is not the one the platform's maker vouches for.",
        _SUSPECT,
    ),
    (
        r"TCB level|[Tt]cb.*not found|matching TCB",
        "tcb-level",
        "The platform's TCB is below every level its maker lists.",
        "Update the platform's firmware and microcode.",
    ),
    (r"TCB ?Info|tcb_?info|TCB", "tcb-info", "The TCB info is forged, damaged or not for SGX.", _RENEW),
    (
        r"certificate chain|Intel extension|UnknownIssuer|[Cc]ertificate",
        CHAIN,
        "A certificate does not lead to the policy's root of trust.",
        _SUSPECT,
    ),
)


def verify_signatures(
    verifier: dcap_qvl.QuoteVerifier, quote: Quote, collateral: Collateral, policy: Policy, now: datetime
) -> tuple[VerifiedClaims | None, list[Refusal]]:
    """Verify `quote` with dcap-qvl at `now`.

    Returns
    -------
    claims
        None when a signature, certificate or the collateral is not good.
    refusals
        Empty when everything, also the policy as far as dcap-qvl knows it, is good. When only the
        policy says no there are claims *and* a refusal :data:`DCAP_POLICY`, so that our own checks can
        say which rule it was.
    """
    seconds = int(now.timestamp())
    try:
        raw, parts = quote.for_dcap_qvl(), collateral.for_dcap_qvl()
    except (MalformedQuoteError, MalformedCollateralError) as error:
        return None, [Refusal(CHAIN, str(error), _SUSPECT)]
    try:
        claims = verifier.verify_with_policy(raw, parts, seconds, _dcap_policy(policy, seconds))
        return VerifiedClaims.read(claims), []
    except ValueError as error:
        strict = str(error)
    import dcap_qvl

    try:
        # Same moment again: the policy's clock is separate from the verifier's in dcap-qvl.
        claims_only = dcap_qvl.QuotePolicy.claims_only(seconds)
        claims = verifier.verify_with_policy(raw, parts, seconds, claims_only)
    except ValueError as error:
        return None, [_refusal(str(error))]
    return VerifiedClaims.read(claims), [
        Refusal(
            DCAP_POLICY,
            f"The platform does not meet the policy ({_cause(strict)}).",
            "Update the platform, or admit its state in the policy's [tcb] table.",
        )
    ]


def _dcap_policy(policy: Policy, seconds: int) -> dcap_qvl.QuotePolicy:
    tcb = policy.tcb
    import dcap_qvl

    rules = dcap_qvl.QuotePolicy.strict(seconds)
    for status in tcb.allowed_statuses:
        rules = rules.allow_status(status)
    if tcb.rejected_advisories:
        rules = rules.reject_advisories(list(tcb.rejected_advisories))
    if tcb.grace_seconds:
        rules = rules.platform_grace_period(tcb.grace_seconds).qe_grace_period(tcb.grace_seconds)
    if tcb.min_tcb_eval_data_number:
        rules = rules.min_tcb_eval_data_number(tcb.min_tcb_eval_data_number)
    return (
        rules.allow_dynamic_platform(tcb.allow_dynamic_platform)
        .allow_cached_keys(tcb.allow_cached_keys)
        .allow_smt(tcb.allow_smt)
        .accepted_sgx_types(list(tcb.sgx_types))
    )


def _refusal(message: str) -> Refusal:
    cause = _cause(message)
    for pattern, check, reason, remedy in _SENTENCES:
        if re.search(pattern, cause):
            return Refusal(check, f"{reason[:-1]} ({cause}).", remedy)
    return Refusal("verification", f"The quote could not be verified ({cause}).", _SUSPECT)


def _cause(message: str) -> str:
    first = message.removeprefix("Verification failed: ").partition("\n")[0].strip().rstrip(".")
    return first[:160] or "no cause given"
