"""Sealing keys: their names, their versions, and who hands them out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, runtime_checkable

from sealbook.errors import InputError
from sealbook.sealing.errors import KeyUnavailableError

#: Length of every key, in bytes (AES-256).
KEY_BYTES = 32

#: Versions count from 1; the bound keeps a header entry short.
MAX_KEY_VERSION = 2**31 - 1

_PART = r"[a-z0-9][a-z0-9._-]{0,63}"
_KEY_NAME = re.compile(rf"{_PART}(?:/{_PART})?")


def check_key_name(name: str) -> str:
    """Return `name` if it is a key name: ``key`` or ``owner/key``.

    Raises
    ------
    InputError
        Each part is 1 to 64 of ``a-z 0-9 . _ -`` and begins with a letter or digit.
    """
    if not isinstance(name, str) or not _KEY_NAME.fullmatch(name):
        raise InputError(
            f"{_shown(name)} is not a key name; write `key` or `owner/key` with a-z, 0-9, '.', '_' and '-',"
            " at most 64 characters each."
        )
    return name


@dataclass(frozen=True, eq=False)
class SealingKey:
    """One version of a named key-encryption key.

    Attributes
    ----------
    name
        See :func:`check_key_name`.
    version
        From 1; a higher version is a newer key under the same name.
    secret
        :data:`KEY_BYTES` bytes. Never shown by ``repr``, never pickled.
    """

    name: str
    version: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if type(self.version) is not int or not 1 <= self.version <= MAX_KEY_VERSION:
            raise InputError(f"The version of key {self.name} must be a whole number from 1.")
        if not isinstance(self.secret, bytes) or len(self.secret) != KEY_BYTES:
            raise InputError(f"Key {self.name} must be {KEY_BYTES} bytes long.")

    @classmethod
    def generate(cls, name: str, version: int = 1) -> SealingKey:
        """Make a new random key."""
        return cls(name, version, secrets.token_bytes(KEY_BYTES))

    def __reduce__(self) -> NoReturn:
        # Python's default would write the secret into whatever is pickled or copied along with it.
        raise TypeError("a sealing key is not pickled")


@runtime_checkable
class KeyProvider(Protocol):
    """Hands out sealing keys: a broker's client in an attested kernel, a keyring elsewhere."""

    def current(self, name: str) -> SealingKey:
        """Return the newest version of key `name`, to seal with.

        Raises
        ------
        KeyUnavailableError
            The provider has no such key or does not release it here.
        """
        ...

    def get(self, name: str, version: int) -> SealingKey:
        """Return exactly that version of key `name`, to unseal with.

        Raises
        ------
        KeyUnavailableError
            The provider has no such key or does not release it here.
        """
        ...


class InMemoryKeys:
    """A key provider over keys given to it; for tests, and for programs with keys of their own.

    Parameters
    ----------
    *keys
        Any number of keys; :meth:`create` adds more.
    """

    def __init__(self, *keys: SealingKey) -> None:
        self._keys: dict[str, dict[int, SealingKey]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: SealingKey) -> SealingKey:
        """Keep `key` and return it."""
        self._keys.setdefault(key.name, {})[key.version] = key
        return key

    def create(self, name: str) -> SealingKey:
        """Add a new random key: version 1 of a new name, else the next version."""
        return self.add(SealingKey.generate(name, max(self._keys.get(name, {}), default=0) + 1))

    def current(self, name: str) -> SealingKey:
        """Return the newest version; see :meth:`KeyProvider.current`."""
        versions = self._keys.get(check_key_name(name))
        if not versions:
            raise KeyUnavailableError(f"There is no key {name} here; create it or name another key.")
        return versions[max(versions)]

    def get(self, name: str, version: int) -> SealingKey:
        """Return one version; see :meth:`KeyProvider.get`."""
        try:
            return self._keys[check_key_name(name)][version]
        except KeyError:
            raise KeyUnavailableError(
                f"There is no version {version} of key {name} here; ask the key's owner for it."
            ) from None


_default: tuple[Callable[[], KeyProvider], Callable[[], str | None]] | None = None


def set_default_keys(
    factory: Callable[[], KeyProvider] | None,
    *,
    key: Callable[[], str | None] | None = None,
    replace: bool = True,
) -> None:
    """Say where keys come from when a caller names no provider, as ``sealed::`` URLs cannot.

    Parameters
    ----------
    factory
        Called at every use, so that a session that begins later is found. None unsets it.
    key
        Called for the key name to seal with when a caller names none.
    replace
        False leaves what was set before: the program's own choice counts more than sealbook's session.
    """
    global _default
    if _default is not None and not replace:
        return
    _default = None if factory is None else (factory, key or (lambda: None))


def default_keys() -> KeyProvider:
    """Return the process's key provider.

    Raises
    ------
    InputError
        No provider was set with :func:`set_default_keys`.
    """
    if _default is None:
        raise InputError("This process has no sealing keys; pass keys= or use a sealbook kernel.")
    return _default[0]()


def default_key_name() -> str:
    """Return the name of the key to seal with when the caller names none.

    Raises
    ------
    InputError
        There is no default key.
    """
    name = None if _default is None else _default[1]()
    if name is None:
        raise InputError('Name the key to seal with, for example storage_options={"key": "team/data"}.')
    return check_key_name(name)


def _shown(name: object) -> str:
    return repr(name[:80]) if isinstance(name, str) else f"A {type(name).__name__}"
