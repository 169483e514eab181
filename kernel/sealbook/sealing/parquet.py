"""Encrypted Parquet (Parquet modular encryption) with sealbook's keys, for pyarrow and pandas.

For exchange with whoever reads Parquet: the file stays a Parquet file, of which single columns, or all of
it, are encrypted by the format's own means. Spark reads and writes the same files with
``sealbook.parquet.SealbookKms``. For everything else a sealed file is simpler and hides more: an encrypted
Parquet file still shows how it is made up, and its columns that no key was named for. And who reads encrypted
Parquet, Spark or pyarrow, also reads what is not encrypted at all: whoever may write files can put a plain
one in its place. :func:`read_table` looks; a sealed file cannot be replaced so.

Parquet has its data keys wrapped under *master keys*, which here are sealbook's keys, by name. A wrapped key
is the base64 of::

    1 (1 byte) | version (4 bytes) | nonce (12 bytes) | AES-256-GCM ciphertext and tag

under ``HKDF-SHA256(key, no salt, "sealbook 1 parquet key wrapping")``, the key's name and the version's
4 bytes being the associated data. The version is what lets a file be read after its key was rotated.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealbook.errors import InputError, MissingDependencyError, RefusedError, SealbookError
from sealbook.sealing.errors import UnsealError
from sealbook.sealing.keys import (
    KEY_BYTES,
    MAX_KEY_VERSION,
    KeyProvider,
    SealingKey,
    check_key_name,
    default_key_name,
    default_keys,
)

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe
except ImportError as error:
    raise MissingDependencyError(
        "Encrypted Parquet needs pyarrow: install sealbook with its `data` extra."
    ) from error

__all__ = ["KmsClient", "decryption", "encryption", "read_table", "unwrap", "wrap", "write_table"]

_FORMAT: Final = 1
#: What a Parquet file ends with whose footer is encrypted; others end with PAR1.
_MAGIC: Final = b"PARE"
_NONCE: Final = 12
_TAG: Final = 16
_HEAD: Final = 1 + 4 + _NONCE
#: Longest key that Parquet has wrapped is 32 bytes; this bounds what is decoded.
_MAX_KEY: Final = 1024
_INFO: Final = b"sealbook 1 parquet key wrapping"
#: How long pyarrow may keep keys that a client unwrapped.
_CACHED: Final = timedelta(minutes=5)


def wrap(plain: bytes, key: SealingKey) -> str:
    """Return `plain`, which is a key of Parquet's own, encrypted under `key`."""
    nonce = os.urandom(_NONCE)
    version = key.version.to_bytes(4, "big")
    sealed = _aead(key).encrypt(nonce, plain, key.name.encode() + version)
    return base64.b64encode(bytes([_FORMAT]) + version + nonce + sealed).decode()


def unwrap(wrapped: str | bytes, name: str, keys: KeyProvider) -> bytes:
    """Return what :func:`wrap` encrypted.

    Raises
    ------
    UnsealError
        It was not wrapped under this key.
    KeyUnavailableError
        The provider does not release the key.
    """
    try:
        data = base64.b64decode(wrapped, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    version = int.from_bytes(data[1:5], "big")
    well_formed = _HEAD + _TAG <= len(data) <= _HEAD + _TAG + _MAX_KEY and data[0] == _FORMAT
    if not well_formed or not 1 <= version <= MAX_KEY_VERSION:
        raise UnsealError("The encrypted Parquet file")
    key = keys.get(check_key_name(name), version)
    try:
        return _aead(key).decrypt(data[5:_HEAD], data[_HEAD:], name.encode() + data[1:5])
    except InvalidTag:
        raise UnsealError("The encrypted Parquet file") from None


class KmsClient(pe.KmsClient):
    """What pyarrow asks to wrap and unwrap keys; its key identifiers are key names.

    Parameters
    ----------
    keys
        Releases them.
    """

    def __init__(self, keys: KeyProvider) -> None:
        super().__init__()
        self._keys = keys
        #: The first refusal: pyarrow shows the text of an error in a traceback and loses the error itself.
        self.refused: SealbookError | None = None

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        """Wrap under the newest version of the key of this name."""
        with self._remembering():
            return wrap(bytes(key_bytes), self._keys.current(check_key_name(master_key_identifier)))

    def unwrap_key(self, wrapped_key: str | bytes, master_key_identifier: str) -> bytes:
        """Unwrap under the version that `wrapped_key` names."""
        with self._remembering():
            return unwrap(wrapped_key, master_key_identifier, self._keys)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except SealbookError as error:
            self.refused = self.refused or error
            raise


def encryption(
    key: str | None = None,
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    keys: KeyProvider | None = None,
) -> Any:
    """Return pyarrow's ``encryption_properties`` for writing one Parquet file.

    Parameters
    ----------
    key
        Name of the key for the footer and, without `columns`, for every column; the session's default key
        when None.
    columns
        Key name to the columns that it encrypts, ``{"lab/patients": ["name", "birth"]}``. Columns that are
        not named stay readable for everybody; the footer, with the names and statistics of all, does not.
    keys
        Where keys come from; :func:`sealbook.sealing.default_keys` by default.

    Examples
    --------
    ``frame.to_parquet("t.parquet", encryption_properties=encryption("lab/data"))``
    """
    return _encryption(KmsClient(_provider(keys)), key, columns)


def decryption(*, keys: KeyProvider | None = None) -> Any:
    """Return pyarrow's ``decryption_properties`` for reading encrypted Parquet files.

    Parameters
    ----------
    keys
        Where keys come from; :func:`sealbook.sealing.default_keys` by default.

    Examples
    --------
    ``pandas.read_parquet("t.parquet", decryption_properties=decryption())``
    """
    return _decryption(KmsClient(_provider(keys)))


def write_table(
    table: pa.Table,
    where: Any,
    key: str | None = None,
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    keys: KeyProvider | None = None,
    **options: Any,
) -> None:
    """Write an Arrow table as one encrypted Parquet file; see :func:`encryption`, `options` are pyarrow's.

    Raises
    ------
    SealbookError
        A key is not released, or `columns` does not fit.
    """
    client = KmsClient(_provider(keys))
    with _sentence(client, where):
        pq.write_table(table, where, encryption_properties=_encryption(client, key, columns), **options)


def read_table(source: Any, *, keys: KeyProvider | None = None, **options: Any) -> pa.Table:
    """Read an encrypted Parquet file, or a directory of them, as an Arrow table; `options` are pyarrow's.

    Raises
    ------
    RefusedError
        A file has its footer in clear, as have all that are not encrypted. Where that is meant, read it with
        pyarrow and :func:`decryption`.
    SealbookError
        A key is not released, or the file or the key is not the one it was written with.
    """
    client = KmsClient(_provider(keys))
    with _sentence(client, source):
        _require_encrypted(source, client, options.get("filesystem"))
        return pq.read_table(source, decryption_properties=_decryption(client), **options)


def _require_encrypted(source: Any, client: KmsClient, filesystem: Any) -> None:
    """Refuse what is not encrypted as a whole: pyarrow would read it as if nothing were missing."""
    if hasattr(source, "seek"):
        _require_magic(source, "The Parquet file")
        source.seek(0)
        return
    found = pq.ParquetDataset(source, filesystem=filesystem, decryption_properties=_decryption(client))
    for name in found.files:
        with found.filesystem.open_input_file(name) as file:
            _require_magic(file, name)


def _require_magic(file: Any, name: str) -> None:
    file.seek(-len(_MAGIC), os.SEEK_END)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise RefusedError(
            f"{name} is not encrypted, or shows its footer in clear: use the file that was encrypted, or "
            "read it with pyarrow itself if that is meant."
        )


def _encryption(client: KmsClient, key: str | None, columns: Mapping[str, Sequence[str]] | None) -> Any:
    footer = check_key_name(default_key_name() if key is None else key)
    by_key = {check_key_name(name): list(chosen) for name, chosen in (columns or {}).items()}
    listed = [column for chosen in by_key.values() for column in chosen]
    if len(set(listed)) != len(listed) or not all(isinstance(column, str) and column for column in listed):
        raise InputError("Each column is encrypted with one key; name it under one.")
    how = {"column_keys": by_key} if listed else {"uniform_encryption": True}
    configuration = pe.EncryptionConfiguration(
        footer_key=footer,
        encryption_algorithm="AES_GCM_V1",  # the other one does not authenticate the data
        data_key_length_bits=8 * KEY_BYTES,
        cache_lifetime=_CACHED,
        **how,
    )
    factory = pe.CryptoFactory(lambda _: client)
    return factory.file_encryption_properties(pe.KmsConnectionConfig(), configuration)


def _decryption(client: KmsClient) -> Any:
    factory = pe.CryptoFactory(lambda _: client)
    configuration = pe.DecryptionConfiguration(cache_lifetime=_CACHED)
    return factory.file_decryption_properties(pe.KmsConnectionConfig(), configuration)


@contextmanager
def _sentence(client: KmsClient, where: Any) -> Iterator[None]:
    """Turn what pyarrow raises about encryption into the errors of this package."""
    name = os.fspath(where) if isinstance(where, str | os.PathLike) else "The Parquet file"
    try:
        yield
    except SealbookError:
        raise
    except FileNotFoundError:
        raise
    except Exception as error:
        if client.refused is not None:
            raise client.refused from None
        if _is_about_encryption(error):
            raise UnsealError(str(name)) from None
        if isinstance(error, pa.ArrowException | OSError):
            # Not its text: pyarrow quotes what it found, which here is what decryption gave.
            raise InputError(
                f"{name} cannot be read or written as encrypted Parquet; check file and path."
            ) from None
        raise


def _is_about_encryption(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, OSError) and any(word in text for word in ("decrypt", "crypto", "aes", "aad"))


def _aead(key: SealingKey) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, None, _INFO).derive(key.secret))


def _provider(keys: KeyProvider | None) -> KeyProvider:
    return default_keys() if keys is None else keys
