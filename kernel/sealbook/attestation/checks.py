"""The checks on evidence and platform beyond signatures: policy, and what dcap-qvl lets through.

Each check is one function from an :class:`Appraisal` to refusals. All run, so a person sees everything
that is wrong at once; those that need verified claims say nothing when there are none, because
then the evidence is refused already.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sealbook.attestation import chains
from sealbook.attestation.claims import VerifiedClaims
from sealbook.attestation.collateral import Collateral, parse_time
from sealbook.attestation.collateral_memory import CollateralMemory
from sealbook.attestation.policy import (
    BASE_ATTRIBUTES_MASK,
    BASE_ATTRIBUTES_VALUE,
    Identity,
    Policy,
    PolicyError,
)
from sealbook.attestation.quote import EnclaveReport, Quote
from sealbook.attestation.result import Refusal
from sealbook.attestation.unattested import UnattestedStatement
from sealbook.errors import RefusedError

_RENEW = "Fetch the platform's current collateral and verify again."
_SUSPECT = "Do not trust this evidence; attest again, and if it stays so, treat the platform as compromised."


@dataclass(frozen=True)
class Appraisal:
    """Everything one decision is made from.

    Attributes
    ----------
    tcb_info, qe_identity
        The collateral's statements, parsed.
    claims
        What dcap-qvl verified, or None.
    """

    quote: Quote
    collateral: Collateral
    tcb_info: dict[str, Any]
    qe_identity: dict[str, Any]
    policy: Policy
    now: datetime
    claims: VerifiedClaims | None
    expected_report_data: bytes | None = None
    memory: CollateralMemory | None = None


Check = Callable[[Appraisal], Iterator[Refusal]]


def matching_identity(report: EnclaveReport, policy: Policy) -> Identity | None:
    """Return the first entry of the policy that admits this enclave."""
    for identity in policy.identities:
        if not list(_differences(report, identity)):
            return identity
    return None


def check_policy(a: Appraisal) -> Iterator[Refusal]:
    """Check that the policy is in force."""
    yield from _in_force(a.policy, a.now)


def _in_force(policy: Policy, now: datetime) -> Iterator[Refusal]:
    try:
        policy.check_valid(now)
    except PolicyError as error:
        reason, _, remedy = str(error).rstrip(".").partition("; ")
        yield Refusal("policy", f"{reason}.", f"{remedy[:1].upper()}{remedy[1:]}.")


def check_root(a: Appraisal) -> Iterator[Refusal]:
    """Check the root of trust."""
    yield from chains.check_root(a.quote, a.policy.trust_root)


def check_chains(a: Appraisal) -> Iterator[Refusal]:
    """Check that certificates are used in their roles, in their time and not revoked."""
    root = a.policy.trust_root
    yield from chains.check_pck_chain(a.quote, root)
    yield from chains.check_statement_signers(a.collateral, root)
    yield from chains.check_crl_issuer(a.quote, a.collateral, root)
    yield from chains.check_times(a.quote, a.collateral, a.now)
    yield from chains.check_revocation(a.quote, a.collateral)
    yield from chains.check_pck_copy(a.quote, a.collateral)


def check_quoting_enclave(a: Appraisal) -> Iterator[Refusal]:
    """Check that 32 zero bytes follow the key's hash in the quoting enclave's REPORTDATA (case 31)."""
    if any(a.quote.qe_report.report_data[32:]):
        yield Refusal("qe-binding", "The quoting enclave's report carries more than it should.", _SUSPECT)


def check_pce(a: Appraisal) -> Iterator[Refusal]:
    """Check that the TCB info is for the PCK's provisioning certification enclave (case 24)."""
    pce_id = bytes(a.quote.pck.pce_id).hex()
    if str(a.tcb_info.get("pceId", "")).lower() != pce_id:
        yield Refusal("pce-id", "The TCB info is for another provisioning certification enclave.", _RENEW)


def check_attributes(a: Appraisal) -> Iterator[Refusal]:
    """Refuse debug, uninitialised and 32-bit enclaves, and provisioning or launch keys (cases 35, 36)."""
    report = a.quote.report
    flags = int.from_bytes(report.attributes[:8], "little")
    if report.debug:
        yield Refusal(
            "debug",
            "The enclave runs in debug mode, so the host can read its memory.",
            "Run the enclave without debug.",
        )
    if (flags ^ BASE_ATTRIBUTES_VALUE) & BASE_ATTRIBUTES_MASK & ~0x02:
        yield Refusal(
            "attributes",
            "The enclave is not initialised, not 64-bit, or may use the provisioning or launch key.",
            "Build and start the enclave as an ordinary production enclave.",
        )


def check_identity(a: Appraisal) -> Iterator[Refusal]:
    """Check that an entry of the policy admits the enclave (cases 37-40)."""
    report = a.quote.report
    if matching_identity(report, a.policy) is not None:
        return
    known = [i for i in a.policy.identities if report.mrenclave in i.mrenclave]
    candidates = known or [i for i in a.policy.identities if i.mrsigner == report.mrsigner] or None
    if candidates is None or (not known and not any(i.mrsigner_only for i in candidates)):
        yield Refusal(
            "measurement",
            f"The code that runs (measurement {report.mrenclave.hex()[:16]}...) is not one the policy "
            "admits.",
            "If you changed or updated something on purpose, `sealbook install` approves it; "
            "otherwise find out who changed it.",
        )
        return
    for difference in _differences(report, candidates[0]):
        yield Refusal(
            "identity",
            f"The enclave is not {candidates[0].name!r} as the policy describes it: {difference}.",
            "Run the enclave the policy describes, or review and change the policy.",
        )


def check_status(a: Appraisal) -> Iterator[Refusal]:
    """Check that the platform's TCB status is allowed (cases 32, 33)."""
    if a.claims is None:
        return
    allowed = a.policy.tcb.allowed_statuses
    for status in dict.fromkeys((a.claims.status, a.claims.platform_level.status, a.claims.qe_level.status)):
        if status not in allowed:
            yield Refusal(
                "tcb-status",
                f"The platform's TCB status is {status}, which the policy does not allow.",
                "Update the platform's firmware, microcode and settings, or add the status to "
                "tcb.allowed_statuses if you accept what it means.",
            )
    grace = timedelta(seconds=a.policy.tcb.grace_seconds)
    for level in (a.claims.platform_level, a.claims.qe_level):
        if level.status.startswith("OutOfDate") and level.status in allowed and a.now - level.date > grace:
            yield Refusal(
                "tcb-grace",
                f"The platform's TCB level of {level.date:%Y-%m-%d} is out of date for longer than the "
                "policy's grace period.",
                "Update the platform's firmware and microcode, or lengthen tcb.grace_seconds.",
            )


def check_advisories(a: Appraisal) -> Iterator[Refusal]:
    """Check that every advisory that applies is accepted by name and none rejected (case 34)."""
    if a.claims is None:
        return
    tcb = a.policy.tcb
    for advisory in a.claims.advisories:
        if advisory in tcb.rejected_advisories:
            yield Refusal(
                "advisory",
                f"Security advisory {advisory} applies to the platform, and the policy rejects it.",
                "Update the platform's firmware and microcode.",
            )
        elif advisory not in tcb.accepted_advisories:
            yield Refusal(
                "advisory",
                f"Security advisory {advisory} applies to the platform, and the policy does not accept it.",
                "Read the advisory; update the platform, or add it to tcb.accepted_advisories.",
            )


def check_evaluation(a: Appraisal) -> Iterator[Refusal]:
    """Check that TCB info and QE identity come from one evaluation that is new enough (case 29)."""
    if a.claims is None:
        return
    tcb = a.policy.tcb
    try:
        numbers = (int(a.tcb_info["tcbEvaluationDataNumber"]), int(a.qe_identity["tcbEvaluationDataNumber"]))
    except (KeyError, TypeError, ValueError):
        yield Refusal(
            "tcb-evaluation", "The collateral does not say which TCB evaluation it is from.", _RENEW
        )
        return
    if tcb.equal_eval_data_numbers and numbers[0] != numbers[1]:
        yield Refusal(
            "tcb-evaluation",
            f"TCB info and QE identity are from different TCB evaluations ({numbers[0]} and {numbers[1]}).",
            _RENEW,
        )
    if min(numbers) < tcb.min_tcb_eval_data_number:
        yield Refusal(
            "tcb-evaluation",
            f"The collateral is from TCB evaluation {min(numbers)}, older than "
            f"the {tcb.min_tcb_eval_data_number} the policy asks for.",
            _RENEW,
        )


def check_platform(a: Appraisal) -> Iterator[Refusal]:
    """Check that the machine is of an admitted kind and not on a deny list (case 56)."""
    if a.claims is None:
        return
    tcb, facts = a.policy.tcb, a.claims.platform
    if facts.sgx_type not in tcb.sgx_types:
        yield Refusal(
            "platform",
            f"The platform's SGX type is {facts.sgx_type}, which the policy does not admit.",
            "Use another platform, or add the type to tcb.sgx_types.",
        )
    for name, value, allowed in (
        ("dynamic_platform", facts.dynamic_platform, tcb.allow_dynamic_platform),
        ("cached_keys", facts.cached_keys, tcb.allow_cached_keys),
        ("smt", facts.smt_enabled, tcb.allow_smt),
    ):
        if value not in ("False", "Undefined") and not allowed:
            yield Refusal(
                "platform",
                f"The platform has {name} set, which the policy does not admit.",
                f"Use another platform, or set tcb.allow_{name} = true.",
            )
    if tcb.fmspc and facts.fmspc not in tcb.fmspc:
        yield Refusal(
            "platform",
            f"The processor (FMSPC {facts.fmspc}) is not one the policy lists.",
            "Use a listed processor, or add it to tcb.fmspc.",
        )
    for what, value, allow, deny in (
        ("PPID", facts.ppid, tcb.ppid_allow, tcb.ppid_deny),
        (
            "platform instance",
            facts.platform_instance_id,
            tcb.platform_instance_allow,
            tcb.platform_instance_deny,
        ),
    ):
        if value in deny:
            yield Refusal(
                "platform-denied",
                f"The machine ({what} {value[:16]}...) is on the policy's deny list.",
                "Use another machine.",
            )
        if allow and value not in allow:
            yield Refusal(
                "platform-denied",
                f"The machine ({what} {value[:16] or 'not stated'}) is not on the policy's list.",
                "Use a listed machine, or add this one.",
            )


def check_collateral_age(a: Appraisal) -> Iterator[Refusal]:
    """Check that the collateral is as recent as the policy asks for (case 27)."""
    issued = min(
        parse_time(statement.get("issueDate"), what=f"The issue date of the {what}")
        for what, statement in (("TCB info", a.tcb_info), ("QE identity", a.qe_identity))
    )
    rules = a.policy.collateral
    if a.now - issued > timedelta(seconds=rules.max_age_seconds):
        yield Refusal(
            "collateral-age",
            f"The collateral was issued on {issued:%Y-%m-%d}, longer ago than the policy accepts.",
            _RENEW,
        )
    if rules.min_issue_date is not None and issued < rules.min_issue_date:
        yield Refusal(
            "collateral-age",
            f"The collateral was issued on {issued:%Y-%m-%d}, before the date the policy asks for.",
            _RENEW,
        )


def check_rollback(a: Appraisal) -> Iterator[Refusal]:
    """Check that the collateral is not older than what was seen before (case 53)."""
    if a.claims is None or a.memory is None or not a.policy.collateral.monotonic:
        return
    authority = a.quote.certificates[1].subject.rfc4514_string()
    key = f"{a.policy.trust_root.fingerprint}/{authority}/{a.claims.platform.fmspc}"
    older = a.memory.witness(key, a.claims.age(a.tcb_info, a.qe_identity))
    if older:
        yield Refusal(
            "collateral-rollback",
            f"The collateral is older than what was seen before ({', '.join(older)}).",
            "Fetch the platform's current collateral; if it stays so, somebody serves you an old one.",
        )


def check_report_data(a: Appraisal) -> Iterator[Refusal]:
    """Compare all 64 bytes of REPORTDATA with the expected ones (cases 41, 43-45)."""
    yield from _binds(a.quote.report.report_data, a.expected_report_data)


def _binds(report_data: bytes, expected: bytes | None) -> Iterator[Refusal]:
    if expected is not None and not hmac.compare_digest(report_data, expected):
        yield Refusal(
            "report-data",
            "The evidence was made for another challenge, channel or purpose than this one.",
            "Attest again; if it stays so, somebody relays or replays evidence.",
        )


#: Refusals that mean: dcap-qvl's yes rests on certificates or collateral that do not count.
BROKEN_ENDORSEMENT = frozenset(
    {
        "trust-root",
        "pck-chain",
        "pck-role",
        "pck-issuer",
        "tcb-signer",
        "crl-issuer",
        "pck-copy",
        "pce-id",
        "qe-binding",
        "certificate-time",
        "collateral-time",
        "revoked",
    }
)

#: In the order in which a person should read the refusals.
CHECKS: tuple[Check, ...] = (
    check_root,
    check_policy,
    check_attributes,
    check_identity,
    check_report_data,
    check_chains,
    check_quoting_enclave,
    check_pce,
    check_status,
    check_advisories,
    check_evaluation,
    check_platform,
    check_collateral_age,
    check_rollback,
)


def run(appraisal: Appraisal) -> list[Refusal]:
    """Run every check; one that fails to run refuses."""
    refusals: list[Refusal] = []
    for check in CHECKS:
        if check is check_rollback and any(refusal.check in BROKEN_ENDORSEMENT for refusal in refusals):
            continue  # collateral that was not issued by the platform's maker must not be remembered
        try:
            refusals += check(appraisal)
        except RefusedError as error:
            reason, _, remedy = str(error).rstrip(".").partition("; ")
            refusals.append(
                Refusal(
                    check.__name__.removeprefix("check_").replace("_", "-"),
                    f"{reason}.",
                    f"{remedy[:1].upper()}{remedy[1:]}." if remedy else _SUSPECT,
                )
            )
    return refusals


def run_without_evidence(
    statement: UnattestedStatement | None, policy: Policy, now: datetime, expected: bytes | None
) -> list[Refusal]:
    """Check a kernel that is not attested, or a policy that admits no other.

    Parameters
    ----------
    statement
        What it handed in; None for a quote, which a policy for kernels that are not attested refuses: it
        admits them by name, and neither more nor less.
    """
    refusals: list[Refusal] = []
    if statement is None:
        refusals.append(
            Refusal(
                "tee",
                f"The kernel attests itself, and the policy admits only kernels of tee {policy.tee!r}, which "
                "are not attested.",
                "Use the policy that belongs to this kernel; `sealbook policy list` shows yours.",
            )
        )
    elif statement.tee != policy.tee:
        refusals.append(
            Refusal(
                "not-attested",
                "The kernel is not attested: it runs in Gramine without SGX, where nothing proves what it "
                "runs.",
                f"Use the kernel sealbook-gramine-sgx, or a policy with tee = {statement.tee!r} if what it "
                "gets needs no protection.",
            )
        )
    refusals += _in_force(policy, now)
    if statement is not None:
        refusals += _binds(statement.report_data, expected)
    return refusals


def _differences(report: EnclaveReport, identity: Identity) -> Iterator[str]:
    if not identity.mrsigner_only and report.mrenclave not in identity.mrenclave:
        yield "it has another measurement"
    if identity.mrsigner is not None and report.mrsigner != identity.mrsigner:
        yield "it has another signer"
    if identity.isv_prod_id is not None and report.isv_prod_id != identity.isv_prod_id:
        yield f"its product id is {report.isv_prod_id}, not {identity.isv_prod_id}"
    if identity.min_isv_svn is not None and report.isv_svn < identity.min_isv_svn:
        yield f"its security version is {report.isv_svn}, lower than {identity.min_isv_svn}"
    if _masked(report.attributes, identity.attributes_mask) != identity.attributes_value:
        yield "it has other attributes"
    if report.misc_select & identity.misc_select_mask != identity.misc_select_value:
        yield "it has another MISCSELECT"
    if report.config_id != identity.config_id:
        yield "it was started with another CONFIGID"


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(a & b for a, b in zip(value, mask, strict=True))
