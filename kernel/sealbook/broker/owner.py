"""The keys in the hands of their owner: what the command line may do without an enclave.

The owner of a keyring seals data *for* an enclave on a machine of their own, so sealing takes any key.
Unsealing outside an enclave takes only keys without a guard: a guard that the owner's own tools went
around would guard nothing, the first time they run on the wrong machine.
"""

from __future__ import annotations

from sealbook.broker.audit import AuditLog
from sealbook.broker.keyring import SESSION_PREFIX, UNGUARDED, Keyring, StoredKey
from sealbook.sealing import KeyUnavailableError, SealingKey


class OwnerKeys:
    """A :class:`~sealbook.sealing.KeyProvider` over the owner's keyring; every use is in the audit log first.

    Parameters
    ----------
    keyring, audit
        The owner's.
    rewrap_for
        A key to which files are moved over (`sealbook rekey`): the old keys are then given if they have the
        guard of that one, because what they guarded stays guarded.
    """

    def __init__(self, keyring: Keyring, audit: AuditLog, *, rewrap_for: str | None = None) -> None:
        self._keyring = keyring
        self._audit = audit
        self._rewrap_for = rewrap_for

    def current(self, name: str) -> SealingKey:
        """Return the version that seals."""
        key = self._find(name).version()
        self._audit.append("owner", decision="released", key=name, version=key.version, purpose="seal")
        return key

    def get(self, name: str, version: int) -> SealingKey:
        """Return a version to unseal with; raises KeyUnavailableError for a guarded key."""
        stored = self._find(name)
        guard = stored.record.guard
        if guard != UNGUARDED and not self._stays_guarded(guard):
            reason = f"it demands attestation (policy '{guard}')"
            self._audit.append("owner", decision="refused", key=name, version=version, reasons=[reason])
            if self._rewrap_for is not None:
                raise KeyUnavailableError(
                    f"The key '{name}' {reason[3:]}, and '{self._rewrap_for}' has another guard: "
                    "choose a key with the same guard."
                )
            raise KeyUnavailableError(
                f"The key '{name}' {reason[3:]}: open the file in an attested sealbook kernel."
            )
        key = stored.version(version)
        purpose = "unseal" if self._rewrap_for is None else "rekey"
        self._audit.append("owner", decision="released", key=name, version=version, purpose=purpose)
        return key

    def _stays_guarded(self, guard: str) -> bool:
        return self._rewrap_for is not None and self._find(self._rewrap_for).record.guard == guard

    def _find(self, name: str) -> StoredKey:
        if name.startswith(SESSION_PREFIX):
            raise KeyUnavailableError(
                f"The key '{name}' lives in the memory of a running Jupyter server only: "
                "use it in a sealbook kernel."
            )
        return self._keyring.find(name)
