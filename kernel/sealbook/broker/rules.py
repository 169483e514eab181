"""The ``[release]`` part of a policy applied: what evidence that passed may then have."""

from __future__ import annotations

from datetime import datetime, timedelta

from sealbook.attestation import Policy
from sealbook.broker.session import AttestedSession, SessionEndedError
from sealbook.errors import RefusedError


class RuleError(RefusedError):
    """The evidence passed, and the policy still does not give what was asked for."""


def check_peer(policy: Policy, *, role: str, audience: str) -> None:
    """Raise RuleError unless `policy` has keys for enclaves in this role, on evidence for this audience."""
    if not policy.release.admits_role(role):
        raise RuleError(
            f"The policy '{policy.id}' has keys for {' or '.join(policy.release.roles)} enclaves, and this "
            f"is a {role}: use a kernel of that role, or a policy that lists this one."
        )
    if not policy.release.admits_audience(audience):
        raise RuleError(
            f"The evidence was made for '{audience}', and the policy '{policy.id}' counts only what was made "
            f"for {' or '.join(policy.release.audiences)}."
        )


def check_unguarded(session: AttestedSession, name: str) -> None:
    """Raise RuleError unless `session` may have the key `name`, which no policy guards.

    Such a key needs no attestation because it is for the user's own processes, on this side. A kernel
    that is not attested runs where its host reads along, and nobody has said that this key may go there.
    """
    if not session.attested:
        raise RuleError(
            f"No policy guards the key '{name}', and a kernel that is not attested gets only keys whose "
            f"policy admits such kernels: `sealbook keys guard {name} POLICY` with one of "
            f"tee = '{session.policy.tee}', or use an attested kernel."
        )


def check_release(policy: Policy, session: AttestedSession, name: str, now: datetime) -> None:
    """Raise unless `policy` gives the key `name` to the enclave behind `session`, whose evidence it admits.

    Raises
    ------
    RuleError
        Key, role or audience is not listed.
    SessionEndedError
        The evidence is too old for this policy.
    """
    check_peer(policy, role=session.role, audience=session.audience)
    if not policy.release.admits_key(name):
        raise RuleError(
            f"The policy '{policy.id}' does not grant the key '{name}': add it to `keys` under [release], or "
            "use a key that is listed."
        )
    if now - session.opened_at > timedelta(seconds=policy.release.ttl_seconds):
        raise SessionEndedError(
            f"The evidence is older than the {policy.release.ttl_seconds} seconds the policy '{policy.id}' "
            "allows: attest again."
        )
