"""Where the keyring's one secret document is kept: the system's keyring, or a file under a passphrase."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import keyring as system_keyring
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from keyring.backend import KeyringBackend
from keyring.errors import KeyringError as SystemKeyringError

from sealbook import files
from sealbook.broker import passphrase as passphrases
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError

#: Largest keyring document, some ten thousand key versions.
MAX_BYTES: Final = 4 << 20

#: What changes the document: takes the present one (None: there is none yet), returns the next.
Change = Callable[[bytes | None], bytes]


class KeyringStore(Protocol):
    """Keeps one secret document. Whoever holds the document holds every key."""

    #: For `sealbook doctor`: what keeps the keys.
    label: str

    def read(self) -> bytes | None:
        """Return the document, or None when nothing was ever stored."""

    def change(self, change: Change) -> None:
        """Replace the document by ``change(document)``, with nobody else writing in between."""


class UnlockError(RefusedError):
    """The keyring did not open; one sentence for a wrong passphrase and for a damaged file."""


class MemoryStore:
    """Keeps the document in this process only, for programs that bring their own keys and for tests."""

    label = "memory of this process"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._document: bytes | None = None

    def read(self) -> bytes | None:
        """Return the document."""
        return self._document

    def change(self, change: Change) -> None:
        """Replace the document."""
        with self._lock:
            self._document = change(self._document)


class SystemKeyringStore:
    """Keeps the document in the desktop's keyring service (Secret Service, KWallet, ...).

    Parameters
    ----------
    backend
        A backend for which :func:`is_real` holds; default: the one the `keyring` library chose.
    lock_path
        File that is locked while the document is changed, because the services have no transactions.
    """

    _SERVICE: Final = "sealbook"
    _ENTRY: Final = "keyring"

    def __init__(self, lock_path: Path, backend: KeyringBackend | None = None) -> None:
        self._backend = backend or system_keyring.get_keyring()
        self._lock_path = lock_path
        self.label = f"system keyring ({self._backend.name})"

    @staticmethod
    def is_real(backend: KeyringBackend) -> bool:
        """Tell whether `backend` keeps secrets safely.

        The `keyring` library recommends backends of priority 1 and more; below are those that
        fail, forget, or write plain text (``keyrings.alt`` has 0.5).
        """
        try:
            return float(backend.priority) >= 1 and type(backend).__module__ not in (
                "keyring.backends.fail",
                "keyring.backends.null",
            )
        except Exception:  # priority is computed, and raises whatever the service's library raises
            return False

    def read(self) -> bytes | None:
        """Return the document; raises UnlockError when the service refuses."""
        with self._plainly():
            stored = self._backend.get_password(self._SERVICE, self._ENTRY)
        return None if stored is None else stored.encode()

    def change(self, change: Change) -> None:
        """Replace the document; raises UnlockError when the service refuses."""
        with locked(self._lock_path):
            document = change(self.read())
            with self._plainly():
                self._backend.set_password(self._SERVICE, self._ENTRY, document.decode())

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except (SystemKeyringError, RuntimeError, OSError) as error:
            raise UnlockError(
                f"The system keyring did not answer ({type(error).__name__}); unlock it and try again."
            ) from None


class PassphraseFileStore:
    """Keeps the document in one file: scrypt (RFC 7914) makes the key, AES-256-GCM encrypts.

    The file is canonical JSON: the parameters in clear (they are the associated data) and the
    ciphertext. It is written atomically with mode 0600, under a lock, with a new nonce each time.

    Parameters
    ----------
    path
        The file; need not exist.
    passphrase
        Asked when the document is first needed, never before; after that the derived key is kept
        in memory and the passphrase is not.
    work
        scrypt's N for a new file, a power of two: 2**17 costs 128 MiB and about 0.3 s.
    """

    _FORMAT: Final = "sealbook keyring file"
    _VERSION: Final = 1
    _R: Final = 8
    _MIN_WORK: Final = 1 << 14
    _MAX_WORK: Final = 1 << 20

    def __init__(self, path: Path, passphrase: Callable[[], str], *, work: int = 1 << 17) -> None:
        self._path = path
        self._ask = passphrase
        self._work = work
        self._mutex = threading.RLock()
        self._derived: tuple[int, bytes, bytes] | None = None  # N, salt, key
        self.label = f"passphrase-protected file {path}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    def read(self) -> bytes | None:
        """Return the document, or None when there is no file.

        Raises
        ------
        UnlockError
            Wrong passphrase, or the file was changed.
        InputError
            The file is not a keyring file.
        """
        with self._mutex:
            return self._read()

    def change(self, change: Change) -> None:
        """Replace the document; raises as :meth:`read` does, and leaves the file as it was then."""
        with self._mutex, locked(self._path.with_name(self._path.name + ".lock")):
            document = change(self._read())
            files.write_bytes(self._path, self._encrypt(document), mode=0o600)

    def _read(self) -> bytes | None:
        try:
            with open(self._path, "rb") as file:
                data = file.read(2 * MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"The keyring file {self._path} cannot be read: {error.strerror}.") from None
        body = self._parse(data)
        header = {key: value for key, value in body.items() if key not in ("nonce", "ciphertext")}
        n, salt = body["n"], _unb64(body["salt"])
        key = self._derive(n, salt)
        try:
            document = AESGCM(key).decrypt(
                _unb64(body["nonce"]), _unb64(body["ciphertext"]), canonical_json(header)
            )
        except InvalidTag:
            raise UnlockError(
                "The keyring does not open: the passphrase is wrong, or the file was changed."
            ) from None
        self._derived = (n, salt, key)
        return document

    def _parse(self, data: bytes) -> dict[str, Any]:
        body = parse_json(data, what=f"The keyring file {self._path}", max_bytes=2 * MAX_BYTES)
        n = body.get("n") if isinstance(body, dict) else None
        if (
            not isinstance(body, dict)
            or not _is_canonical(body, data)
            or set(body) != {"format", "version", "kdf", "n", "r", "p", "salt", "nonce", "ciphertext"}
            or (body["format"], body["version"], body["kdf"]) != (self._FORMAT, self._VERSION, "scrypt")
            # Bounds, so that a planted file can neither stop the machine nor weaken the derivation.
            or not (isinstance(n, int) and self._MIN_WORK <= n <= self._MAX_WORK and n.bit_count() == 1)
            or (body["r"], body["p"]) != (self._R, 1)
            or (len(_unb64(body["salt"])), len(_unb64(body["nonce"]))) != (16, 12)
        ):
            raise InputError(f"{self._path} is not a sealbook keyring file of a version that is known here.")
        return body

    def _encrypt(self, document: bytes) -> bytes:
        if len(document) > MAX_BYTES:
            raise InputError(f"The keyring is full ({MAX_BYTES} bytes); delete keys that are not used.")
        if self._derived is None:
            salt = secrets.token_bytes(16)
            self._derived = (self._work, salt, self._derive(self._work, salt, new=True))
        n, salt, key = self._derived
        header = {
            "format": self._FORMAT,
            "version": self._VERSION,
            "kdf": "scrypt",
            "n": n,
            "r": self._R,
            "p": 1,
            "salt": _b64(salt),
        }
        nonce = secrets.token_bytes(12)
        ciphertext = AESGCM(key).encrypt(nonce, document, canonical_json(header))
        return canonical_json(header | {"nonce": _b64(nonce), "ciphertext": _b64(ciphertext)}) + b"\n"

    def _derive(self, n: int, salt: bytes, *, new: bool = False) -> bytes:
        if self._derived is not None and self._derived[:2] == (n, salt):
            return self._derived[2]
        passphrase = self._ask()
        if new and len(passphrase) < passphrases.MIN_LENGTH:
            raise InputError(
                f"The passphrase is too short: it needs {passphrases.MIN_LENGTH} characters or more."
            )
        return Scrypt(salt=salt, length=32, n=n, r=self._R, p=1).derive(passphrase.encode())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made when missing) against other processes and threads."""
    # flock belongs to the open file description: two threads that open the file exclude each other too.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_canonical(value: Any, data: bytes) -> bool:
    try:
        return canonical_json(value) + b"\n" == data
    except (TypeError, ValueError):  # a float, or half a surrogate pair
        return False


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: Any) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return b""
    # The last character has spare bits, which b64decode does not look at.
    return decoded if _b64(decoded) == text else b""
