"""The keyring: named, versioned sealing keys, each with the policy that guards it. Nothing exports a key."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import keyring as system_keyring

from sealbook import paths
from sealbook.broker import passphrase as passphrases
from sealbook.broker.pkcs11 import TokenStore, token_settings
from sealbook.broker.reserved import is_reserved
from sealbook.broker.stores import MAX_BYTES, KeyringStore, PassphraseFileStore, SystemKeyringStore
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError
from sealbook.sealing import KeyUnavailableError, SealingKey, check_key_name

#: Guard of a key that is given to every process of the user, attested or not.
UNGUARDED: Final = "none"

#: Owner part of keys that a broker makes in memory and that no keyring stores.
SESSION_PREFIX: Final = "session/"

_GUARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_DESCRIPTION = 200


@dataclass(frozen=True)
class KeyVersion:
    """One version of a key: its number, counting from 1, and when it was made (ISO 8601, UTC)."""

    version: int
    created: str


@dataclass(frozen=True)
class KeyRecord:
    """What may be shown of a key.

    Attributes
    ----------
    name
        "key" or "owner/key".
    guard
        Name of the policy an enclave must pass to get the key, or :data:`UNGUARDED`.
    description
        For a person.
    versions
        All versions, oldest first. The last one seals; all of them unseal.
    """

    name: str
    guard: str
    description: str
    versions: tuple[KeyVersion, ...]

    @property
    def current(self) -> int:
        """The version that seals."""
        return self.versions[-1].version

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "guard": self.guard,
            "description": self.description,
            "current": self.current,
            "versions": [{"version": each.version, "created": each.created} for each in self.versions],
        }


@dataclass(frozen=True, repr=False)
class StoredKey:
    """A key with the secrets of all its versions, version n at index n - 1; see :meth:`Keyring.find`."""

    record: KeyRecord
    secrets: tuple[bytes, ...]

    def version(self, number: int | None = None) -> SealingKey:
        """Return one version, by default the one that seals; raises KeyUnavailableError if there is none."""
        name, current = self.record.name, self.record.current
        number = current if number is None else number
        if not 1 <= number <= current:
            raise KeyUnavailableError(
                f"There is no version {number} of the key '{name}'; the newest is {current}."
            )
        return SealingKey(name, number, self.secrets[number - 1])


class Keyring:
    """The keys of one user, in one :class:`~sealbook.broker.stores.KeyringStore`.

    Nothing is read, and no passphrase asked for, before a key is wanted.

    Parameters
    ----------
    store
        Keeps the keys.
    clock
        Gives the aware time that new versions carry.
    """

    _FORMAT: Final = "sealbook keyring"
    _VERSION: Final = 1

    def __init__(
        self, store: KeyringStore, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.store = store
        self._clock = clock

    def list(self) -> tuple[KeyRecord, ...]:
        """Return what may be shown of every key, by name."""
        return tuple(stored.record for _, stored in sorted(self._load().items()))

    def record(self, name: str) -> KeyRecord:
        """Return what may be shown of one key; raises InputError when there is none of that name."""
        return self._known(self._load(), name).record

    def find(self, name: str) -> StoredKey:
        """Return a key with its guard, both as they stand at this moment.

        Only the broker, around its decision, and an unattested session, for unguarded keys, call this.

        Raises
        ------
        KeyUnavailableError
            No such key; other keys are not named, because the answer may go to an enclave. Or it is one of
            sealbook's own, see :meth:`reserved`.
        """
        if is_reserved(name):
            raise KeyUnavailableError(
                f"The key '{name}' is sealbook's own and seals nothing: choose another key."
            )
        stored = self._load().get(name)
        if stored is None:
            raise KeyUnavailableError(
                f"There is no key '{name}' in the keyring; `sealbook keys create {name}` makes one."
            )
        return stored

    def reserved(self, name: str) -> StoredKey | None:
        """Return one of sealbook's own keys (:mod:`sealbook.broker.reserved`), or None before it was made.

        Only what derives from them (the authorities, the owner's signature) and the code that decides
        who is member of a cluster call this.
        """
        if not is_reserved(name):
            raise ValueError("this is a key that seals")
        return self._load().get(name)

    def make_reserved(self, name: str, *, guard: str, description: str) -> StoredKey:
        """Return one of sealbook's own keys, made unless there is one, whoever else may ask meanwhile."""
        found = self.reserved(name)
        if found is not None:
            return found
        check_key_name(name)
        check_guard(guard)

        def put(keys: dict[str, StoredKey]) -> None:
            # Somebody else may have made it since.
            if name not in keys:
                record = KeyRecord(name, guard, description, (self._new_version(1),))
                keys[name] = StoredKey(record, (_new_secret(),))

        self._rewrite(put)
        made = self.reserved(name)
        if made is None:
            raise KeyUnavailableError(f"The key '{name}' was deleted while it was being made.")
        return made

    def key(self, name: str, version: int | None = None) -> SealingKey:
        """Return one version of a key; raises as :meth:`find` does."""
        return self.find(name).version(version)

    def create(self, name: str, *, guard: str, description: str = "") -> KeyRecord:
        """Make a new key of 32 random bytes.

        Raises
        ------
        InputError
            The name is taken or not a key name, or the guard is not a policy's name.
        """
        check_key_name(name)
        if name.startswith(SESSION_PREFIX):
            raise InputError(
                f"'{name}' cannot be stored: keys under '{SESSION_PREFIX}' live in the memory of a broker."
            )
        check_guard(guard)
        if len(description) > _MAX_DESCRIPTION or not description.isprintable():
            raise InputError(f"A key's description is one line of at most {_MAX_DESCRIPTION} characters.")

        def add(keys: dict[str, StoredKey]) -> StoredKey:
            if name in keys:
                raise InputError(
                    f"There is a key '{name}' already; `sealbook keys rotate {name}` gives it a new version."
                )
            return StoredKey(KeyRecord(name, guard, description, (self._new_version(1),)), (_new_secret(),))

        return self._change(name, add)

    def rotate(self, name: str) -> KeyRecord:
        """Add a version, which seals from now on; older ones keep unsealing what they sealed."""

        def add_version(keys: dict[str, StoredKey]) -> StoredKey:
            stored = self._known(keys, name)
            versions = (*stored.record.versions, self._new_version(stored.record.current + 1))
            return StoredKey(replace(stored.record, versions=versions), (*stored.secrets, _new_secret()))

        return self._change(name, add_version)

    def set_guard(self, name: str, guard: str) -> KeyRecord:
        """Have another policy guard a key from now on."""
        check_guard(guard)

        def put(keys: dict[str, StoredKey]) -> StoredKey:
            stored = self._known(keys, name)
            return replace(stored, record=replace(stored.record, guard=guard))

        return self._change(name, put)

    def delete(self, name: str) -> None:
        """Delete a key with all its versions: what only it can unseal is lost for good."""

        def remove(keys: dict[str, StoredKey]) -> None:
            self._known(keys, name)
            del keys[name]

        self._rewrite(remove)

    def _change(self, name: str, change: Callable[[dict[str, StoredKey]], StoredKey]) -> KeyRecord:
        changed: list[StoredKey] = []

        def put(keys: dict[str, StoredKey]) -> None:
            changed[:] = [change(keys)]
            keys[name] = changed[0]

        self._rewrite(put)
        return changed[0].record

    def _rewrite(self, change: Callable[[dict[str, StoredKey]], None]) -> None:
        def rewrite(document: bytes | None) -> bytes:
            keys = self._decode(document)
            change(keys)
            return self._encode(keys)

        self.store.change(rewrite)

    def _load(self) -> dict[str, StoredKey]:
        return self._decode(self.store.read())

    def _known(self, keys: dict[str, StoredKey], name: str) -> StoredKey:
        check_key_name(name)
        if name not in keys:
            raise InputError(f"There is no key '{name}'; there are: {', '.join(sorted(keys)) or 'none yet'}.")
        return keys[name]

    def _new_version(self, number: int) -> KeyVersion:
        return KeyVersion(number, self._clock().astimezone(UTC).isoformat(timespec="seconds"))

    def _encode(self, keys: dict[str, StoredKey]) -> bytes:
        entries = {
            name: {
                "guard": stored.record.guard,
                "description": stored.record.description,
                "versions": [
                    {"created": version.created, "secret": base64.b64encode(secret).decode()}
                    for version, secret in zip(stored.record.versions, stored.secrets, strict=True)
                ],
            }
            for name, stored in keys.items()
        }
        return canonical_json({"format": self._FORMAT, "version": self._VERSION, "keys": entries})

    def _decode(self, document: bytes | None) -> dict[str, StoredKey]:
        if document is None:
            return {}
        body = parse_json(document, what="The keyring", max_bytes=MAX_BYTES)
        try:
            if (body["format"], body["version"]) != (self._FORMAT, self._VERSION):
                raise ValueError
            return {name: _stored(name, entry) for name, entry in body["keys"].items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError("The keyring is not of a version that is known here.") from None


def check_guard(guard: str) -> None:
    """Raise InputError unless `guard` names a policy: a plain name, an absolute path, or "none"."""
    if not (_GUARD_NAME.fullmatch(guard) or (Path(guard).is_absolute() and guard.isprintable())):
        raise InputError(
            f"'{guard}' names no policy: give the name of one in {paths.policy_dir()}, an absolute path, "
            f"or '{UNGUARDED}' for a key that needs no attestation."
        )


def open_keyring(*, passphrase: Callable[[], str] | None = None) -> Keyring:
    """Return the user's keyring, not unlocked yet.

    The one in the token that ``config.toml`` names, if it names one; else the passphrase-protected file if
    there is one, else the system's keyring service if there is one, else a passphrase-protected file that the
    first key creates.

    Parameters
    ----------
    passphrase
        Asked when the file is first opened. Default: only what the parent process handed over
        (:func:`sealbook.broker.passphrase.inherited`), which never blocks on a terminal. For a token it is
        the PIN.
    """
    path = paths.keyring_file()
    token = token_settings(paths.config_file())
    if token is not None:
        return Keyring(TokenStore(paths.token_keyring_file(), token, passphrase or passphrases.inherited))
    if not path.exists():
        backend = system_keyring.get_keyring()
        if SystemKeyringStore.is_real(backend):
            return Keyring(SystemKeyringStore(path.with_name(path.name + ".lock"), backend))
    return Keyring(PassphraseFileStore(path, passphrase or passphrases.inherited))


def _new_secret() -> bytes:
    return secrets.token_bytes(32)


def _stored(name: str, entry: dict[str, Any]) -> StoredKey:
    versions = tuple(KeyVersion(number, each["created"]) for number, each in enumerate(entry["versions"], 1))
    keys = tuple(base64.b64decode(each["secret"], validate=True) for each in entry["versions"])
    if not keys or any(len(secret) != 32 for secret in keys):
        raise ValueError
    return StoredKey(KeyRecord(name, entry["guard"], entry["description"], versions), keys)
