"""Says in sentences what a policy admits, so that a person can see what loosens it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from sealbook.attestation.policy import Identity, Policy

_DAY = 24 * 3600


def explain(policy: Policy) -> Iterator[str]:
    """Yield the sentences, the most important first."""
    yield _explain_root(policy)
    yield f"It is in force from {_day(policy.created)} until {_day(policy.expires)}."
    if policy.attested:
        yield from _explain_evidence(policy)
    yield f"A challenge must be answered within {_span(policy.freshness.nonce_ttl_seconds)}, once."
    yield _explain_release(policy)


def _explain_root(policy: Policy) -> str:
    if policy.simulated:
        return (
            "Admits only SIMULATED evidence, of the one simulated platform with root certificate "
            f"{policy.trust_root.fingerprint[:16]}...; it protects nothing from "
            "whoever controls this machine."
        )
    if not policy.attested:
        return (
            f"Admits only kernels that are NOT ATTESTED ({policy.tee}: Gramine without SGX): nothing proves "
            "what they run, and nothing protects them, or the keys they are given, from whoever controls "
            "the machine they run on."
        )
    return "Admits only evidence of genuine Intel SGX hardware (Intel SGX Root CA)."


def _explain_evidence(policy: Policy) -> Iterator[str]:
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


def _explain_release(policy: Policy) -> str:
    release = policy.release
    if not release.keys:
        return "No key is released."
    keys = "every key this policy guards" if "*" in release.keys else ", ".join(release.keys)
    begun = "attestation" if policy.attested else "the kernel's start"
    limits = [f"for {_span(release.ttl_seconds)} after {begun}"]
    if release.roles:
        limits.append(f"to {_or(release.roles)} {'enclaves' if policy.attested else 'processes'}")
    if release.audiences:
        limits.append(f"on evidence made for {_or(release.audiences)}")
    if release.max_uses is not None:
        limits.append(f"at most {release.max_uses} times in a session")
    if release.max_sessions is not None:
        limits.append(f"in at most {release.max_sessions} sessions at a time")
    return f"Releases {keys}, {', '.join(limits)}."


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
