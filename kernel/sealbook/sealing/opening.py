"""Opening, inspecting, and the two-line helpers for small contents."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any, Literal, overload

from sealbook.errors import InputError
from sealbook.sealing.access import open_for_reading
from sealbook.sealing.errors import DamagedFileError, UnsealError
from sealbook.sealing.header import HEADER, SealedInfo, inspect_header
from sealbook.sealing.keys import KeyProvider, default_key_name
from sealbook.sealing.reader import SealedReader
from sealbook.sealing.writer import SealedWriter


@overload
def open_sealed(
    path: str | os.PathLike[str] | IO[bytes],
    mode: Literal["rb"] = "rb",
    *,
    keys: KeyProvider,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
) -> SealedReader: ...


@overload
def open_sealed(
    path: str | os.PathLike[str] | IO[bytes],
    mode: Literal["wb"],
    *,
    keys: KeyProvider,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
    codec: str = "file",
    codec_metadata: Mapping[str, Any] | None = None,
    sealer: Mapping[str, Any] | None = None,
) -> SealedWriter: ...


def open_sealed(
    path: str | os.PathLike[str] | IO[bytes],
    mode: str = "rb",
    *,
    keys: KeyProvider,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
    codec: str = "file",
    codec_metadata: Mapping[str, Any] | None = None,
    sealer: Mapping[str, Any] | None = None,
) -> SealedReader | SealedWriter:
    """Open a sealed file for reading at any position, or for writing as a stream.

    Parameters
    ----------
    path
        A local path, or a binary file object (seekable for reading).
    mode
        "rb" or "wb".
    keys
        Releases the key.
    key
        Writing: the name of the key to seal to; the default key if there is one. Reading: when given,
        the file must be sealed to the key of this name, whatever the version; who may write files
        cannot swap in one that is sealed to another key.
    context
        Writing: public text that the file is bound to. Reading: when given, the file must have
        been sealed with exactly this context.
    codec, codec_metadata, sealer
        Writing only: for the header.

    Returns
    -------
    SealedReader or SealedWriter
        Unbuffered binary files; what was written has its name once it is closed without an exception.

    Raises
    ------
    UnsealError
        Reading: the file, key or context is not the one of the sealing. Also raised later, by
        `read`, when a segment in the middle is not authentic.
    KeyUnavailableError
        `keys` does not release the key.
    NotSealedError
        Reading: it is no sealed file.
    InputError
        A path that cannot be opened, a bad key name, context or mode.
    """
    if mode == "rb":
        return SealedReader(path, keys=keys, context=context, key=key)
    if mode == "wb":
        return SealedWriter(
            path,
            key=default_key_name() if key is None else key,
            keys=keys,
            context=context,
            codec=codec,
            codec_metadata=codec_metadata,
            sealer=sealer,
        )
    raise InputError(f"A sealed file opens with mode 'rb' or 'wb', not {mode!r}.")


def inspect(path: str | os.PathLike[str] | IO[bytes]) -> SealedInfo:
    """Tell what a sealed file says about itself, without any key.

    Nobody has vouched for the result: ``authenticated`` is False. Open the file to know.

    Raises
    ------
    NotSealedError, DamagedFileError, InputError
        It is no sealed file, it is damaged, or it cannot be opened.
    """
    file = open_for_reading(path)
    try:
        return inspect_header(file.read_at(0, HEADER), name=file.name, sealed_size=file.size)
    except UnsealError:
        raise DamagedFileError(file.name) from None
    finally:
        file.close()


def write_bytes(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    key: str,
    keys: KeyProvider,
    context: Mapping[str, str] | None = None,
) -> SealedInfo:
    """Seal `data` into a file; see :func:`open_sealed`."""
    with SealedWriter(path, key=key, keys=keys, context=context, codec="bytes") as file:
        file.write(data)
    assert file.info is not None  # noqa: S101 - for the type checker; close() has set it
    return file.info


def read_bytes(
    path: str | os.PathLike[str],
    *,
    keys: KeyProvider,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
) -> bytes:
    """Return all that is sealed in a file; see :func:`open_sealed`."""
    with SealedReader(path, keys=keys, context=context, key=key) as file:
        return file.read()
