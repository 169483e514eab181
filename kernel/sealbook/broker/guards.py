"""The policies that guard keys, found by the names that the keyring records."""

from __future__ import annotations

from pathlib import Path

from sealbook import paths
from sealbook.attestation import Policy
from sealbook.broker.keyring import UNGUARDED, check_guard
from sealbook.errors import InputError


def policy_file(guard: str) -> Path:
    """Return where the policy `guard` lies: ``NAME.toml`` in the policy directory, or the path itself.

    Raises
    ------
    InputError
        `guard` is "none" or not a policy's name.
    """
    check_guard(guard)
    if guard == UNGUARDED:
        raise InputError(f"'{UNGUARDED}' is not a policy: it marks keys that need no attestation.")
    if Path(guard).is_absolute():
        return Path(guard)
    return paths.policy_dir() / (guard if guard.endswith(".toml") else f"{guard}.toml")


def load_policy(guard: str) -> Policy:
    """Load the policy `guard` names; read anew each time, so that an edit counts at once.

    Raises
    ------
    InputError
        There is no such policy (and, as PolicyError, one that cannot be used).
    """
    path = policy_file(guard)
    if not path.is_file():
        raise InputError(
            f"There is no policy '{guard}' ({path}); `sealbook policy init` writes one for this machine."
        )
    return Policy.load(path)
