"""Where sealbook keeps what belongs to one user: keys, policies, settings, the audit log, ..."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

#: Names another directory for everything below; a path, never a secret.
HOME_VARIABLE = "SEALBOOK_HOME"


def data_dir() -> Path:
    """Return the user's sealbook directory, made with mode 0700 when it is missing.

    ``$SEALBOOK_HOME`` if set, else the platform's user data directory
    (``~/.local/share/sealbook`` on Linux).
    """
    named = os.environ.get(HOME_VARIABLE)
    path = Path(named).expanduser() if named else Path(platformdirs.user_data_dir("sealbook"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def simulated_platform_dir() -> Path:
    """Return where the simulated platform keeps its keys (:mod:`sealbook.attestation.simulated`)."""
    return data_dir() / "simulated-platform"


def policy_dir() -> Path:
    """Return where the attestation policies of this user lie, one TOML file each."""
    path = data_dir() / "policies"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def keyring_file() -> Path:
    """Return the passphrase-protected keyring, used where the system has no keyring service."""
    return data_dir() / "keyring.sealbook"


def token_keyring_file() -> Path:
    """Return the keyring that a PKCS#11 token opens, used where the settings name one."""
    return data_dir() / "keyring.token"


def audit_log() -> Path:
    """Return the hash-chained log of every decision of the broker."""
    return data_dir() / "audit.jsonl"


def config_file() -> Path:
    """Return the user's settings, TOML; there need not be any."""
    return data_dir() / "config.toml"


def collateral_cache_dir() -> Path:
    """Return where fetched collateral of genuine hardware is kept; made when there is some."""
    return data_dir() / "collateral"


def image_dir() -> Path:
    """Return where the kernel images of this user lie, one directory each."""
    return data_dir() / "images"


def launch_dir() -> Path:
    """Return where kernels in Gramine have their directories while they run."""
    return data_dir() / "launches"
