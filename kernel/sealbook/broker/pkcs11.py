"""The keyring under a key that cannot leave a hardware token (PKCS#11): the file alone opens nowhere else.

The token holds one AES-256 key that it neither exports nor lets change; the keyring's document is encrypted
in the token (AES-GCM) and lies beside the other files of the user. What is decrypted is in this process's
memory, as with a passphrase; what is gained is that the file and the PIN together are still not enough.
"""

from __future__ import annotations

import base64
import ctypes
import os
import secrets
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealbook import files
from sealbook.broker.stores import MAX_BYTES, Change, UnlockError, locked
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, MissingDependencyError

#: A token knows one login for all of a process.
_login = threading.RLock()

#: Name of the key in the token.
KEY_LABEL: Final = "sealbook keyring"

_FORMAT: Final = "sealbook keyring in a token"
_VERSION: Final = 1
_NONCE_BYTES: Final = 12
_MAX_SETTINGS: Final = 64 * 1024
_MAX_LABEL: Final = 32  # PKCS#11's own


@dataclass(frozen=True)
class TokenSettings:
    """Which token: the library of its maker, and the token's label."""

    module: Path
    token: str


def token_settings(config: Path) -> TokenSettings | None:
    """Return what ``[keyring]`` of the user's ``config.toml`` names, or None where it names no token.

    Raises
    ------
    InputError
        What stands there cannot be used.
    """
    if not config.exists():
        return None
    raw = files.read_bounded(config, "The settings", _MAX_SETTINGS)
    try:
        table = tomllib.loads(raw.decode()).get("keyring")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{config} is not valid TOML ({str(error).partition(chr(10))[0]}).") from None
    if table is None:
        return None
    if (
        not isinstance(table, dict)
        or set(table) != {"pkcs11_module", "token"}
        or not all(isinstance(value, str) and value.isprintable() for value in table.values())
        or not Path(table["pkcs11_module"]).is_absolute()
        or not 0 < len(table["token"]) <= _MAX_LABEL
    ):
        raise InputError(
            f"[keyring] in {config} has exactly two settings: pkcs11_module, the absolute path of its "
            f"library, and token, its label of at most {_MAX_LABEL} characters."
        )
    return TokenSettings(Path(table["pkcs11_module"]), table["token"])


class TokenStore:
    """Keeps the keyring's document in a file that only a token opens; a :class:`KeyringStore`.

    Parameters
    ----------
    path
        The file; need not exist.
    settings
        Which token.
    pin
        Asked when the document is first needed; kept in memory while the process lives, because a token
        forgets who logged in.
    """

    def __init__(self, path: Path, settings: TokenSettings, pin: Callable[[], str]) -> None:
        self._path = path
        self._settings = settings
        self._ask = pin
        self._pin: str | None = None
        self.label = f"file {path} under the token '{settings.token}'"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r}, {self._settings.token!r})"

    def read(self) -> bytes | None:
        """Return the document, or None when there is no file.

        Raises
        ------
        UnlockError
            Wrong PIN, another token, or the file was changed.
        InputError
            There is no such library or token, or the file is no keyring file.
        """
        with _login:
            if not self._path.exists():
                return None
            with self._key() as key:
                return self._decrypt(key)

    def change(self, change: Change) -> None:
        """Replace the document; raises as :meth:`read` does, and leaves the file as it was then."""
        with _login, locked(self._path.with_name(self._path.name + ".lock")):
            exists = self._path.exists()
            with self._key(make=not exists) as key:
                document = change(self._decrypt(key) if exists else None)
                if len(document) > MAX_BYTES:
                    raise InputError(
                        f"The keyring is full ({MAX_BYTES} bytes); delete keys that are not used."
                    )
                files.write_bytes(self._path, self._encrypt(key, document), mode=0o600)

    def _header(self) -> dict[str, Any]:
        return {"format": _FORMAT, "version": _VERSION, "token": self._settings.token}

    def _encrypt(self, key: Any, document: bytes) -> bytes:
        from pkcs11 import GCMParams, Mechanism

        nonce = secrets.token_bytes(_NONCE_BYTES)
        header = self._header()
        parameters = GCMParams(nonce, canonical_json(header), 128)
        sealed = key.encrypt(document, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        body = {"nonce": base64.b64encode(nonce).decode(), "ciphertext": base64.b64encode(sealed).decode()}
        return canonical_json(header | body) + b"\n"

    def _decrypt(self, key: Any) -> bytes:
        from pkcs11 import GCMParams, Mechanism, PKCS11Error

        raw = files.read_bounded(self._path, "The keyring file", 2 * MAX_BYTES)
        body = parse_json(raw, what=f"The keyring file {self._path}", max_bytes=2 * MAX_BYTES)
        header = self._header()
        try:
            nonce = base64.b64decode(body["nonce"], validate=True)
            sealed = base64.b64decode(body["ciphertext"], validate=True)
            if canonical_json(body) + b"\n" != raw or len(nonce) != _NONCE_BYTES:
                raise ValueError
            if {name: value for name, value in body.items() if name not in ("nonce", "ciphertext")} != header:
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(
                f"{self._path} is not a keyring file of the token '{self._settings.token}'."
            ) from None
        parameters = GCMParams(nonce, canonical_json(header), 128)
        try:
            document: bytes = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        except PKCS11Error:
            raise UnlockError(
                "The keyring does not open: the token is another one, or the file was changed."
            ) from None
        return document

    @contextmanager
    def _key(self, *, make: bool = False) -> Iterator[Any]:
        """Log in and give the token's key; made with the first document."""
        library, exceptions, types = _library()
        where = f"the token '{self._settings.token}'"
        try:
            _bind_to_its_own(self._settings.module)
            token = library(str(self._settings.module)).get_token(token_label=self._settings.token)
        except exceptions.NoSuchToken:
            raise InputError(
                f"There is no {where[4:]}: plug it in, or correct [keyring] in config.toml."
            ) from None
        except exceptions.MultipleTokensReturned:
            raise InputError(
                f"There are several tokens '{self._settings.token}': give them other labels."
            ) from None
        except (exceptions.PKCS11Error, OSError, RuntimeError):
            raise InputError(
                f"The library {self._settings.module} of {where} cannot be loaded: install it, or correct "
                "[keyring] in config.toml."
            ) from None
        if self._pin is None:
            self._pin = self._ask()
        try:
            with token.open(rw=make, user_pin=self._pin) as session:
                yield self._find(session, exceptions, types, make=make)
        except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange):
            self._pin = None
            raise UnlockError(f"The PIN of {where} is wrong.") from None
        except (exceptions.PinLocked, exceptions.PinExpired, exceptions.UserPinNotInitialized):
            self._pin = None
            raise UnlockError(
                f"The PIN of {where} is locked, expired or not set: use its maker's tool."
            ) from None
        except exceptions.PKCS11Error as error:
            raise UnlockError(f"The keyring did not open: {where} failed ({type(error).__name__}).") from None

    def _find(self, session: Any, exceptions: Any, types: Any, *, make: bool) -> Any:
        attribute = types.Attribute
        try:
            key = session.get_key(
                object_class=types.ObjectClass.SECRET_KEY, key_type=types.KeyType.AES, label=KEY_LABEL
            )
            # Whoever has the PIN can put a key of this name there, and one that the token gives away again.
            if key[attribute.EXTRACTABLE] or not key[attribute.SENSITIVE]:
                raise InputError(
                    f"The token's key '{KEY_LABEL}' can be read out of it, so it is not one of sealbook's: "
                    "delete it with the tool of the token's maker."
                )
            return key
        except exceptions.MultipleObjectsReturned:
            raise InputError(f"The token has several keys '{KEY_LABEL}': delete the wrong ones.") from None
        except exceptions.NoSuchKey:
            if not make:
                raise UnlockError(
                    "The keyring does not open: the token does not have the key it was made with."
                ) from None
        return session.generate_key(
            types.KeyType.AES,
            256,
            label=KEY_LABEL,
            store=True,
            capabilities=types.MechanismFlag.ENCRYPT | types.MechanismFlag.DECRYPT,
            template={
                attribute.PRIVATE: True,
                attribute.SENSITIVE: True,
                attribute.EXTRACTABLE: False,
                attribute.MODIFIABLE: False,
            },
        )


def _bind_to_its_own(module: Path) -> None:
    """Load the token's library so that it calls the OpenSSL that it was linked with.

    TensorFlow gives the names of its own BoringSSL to every library that is loaded after it; SoftHSM then
    ended the process with a segmentation fault. The first load of a library decides, and python-pkcs11's
    is the second.
    """
    ctypes.CDLL(str(module), mode=os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))


def _library() -> tuple[Any, Any, Any]:
    try:
        import pkcs11
        from pkcs11 import exceptions
    except ImportError:
        raise MissingDependencyError(
            "The keyring is in a token and python-pkcs11 is not installed: `pip install 'sealbook[service]'`."
        ) from None
    return pkcs11.lib, exceptions, pkcs11
