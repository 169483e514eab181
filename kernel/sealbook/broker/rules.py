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
