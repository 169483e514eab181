"""The user's keyring and audit log as the command line opens them: it may ask at the terminal."""

from __future__ import annotations

from sealbook import paths
from sealbook.broker import AuditLog, Keyring, open_keyring
from sealbook.broker.passphrase import interactive
from sealbook.broker.pkcs11 import token_settings


def user_keyring() -> Keyring:
    """Return the keyring; asks for its passphrase when it is first used, twice for a new file."""
    # A token has its PIN already.
    new = not paths.keyring_file().exists() and token_settings(paths.config_file()) is None
    return open_keyring(passphrase=interactive(confirm=new))


def user_audit() -> AuditLog:
    """Return the audit log."""
    return AuditLog(paths.audit_log())
