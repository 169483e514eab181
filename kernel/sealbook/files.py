"""Files that are either the old one or the new one, whatever is killed when."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: Temporary files lie beside their target (rename is atomic only within one file system),
#: hidden, and are recognised by this infix.
TEMPORARY_INFIX = ".sealbook-"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a temporary file for writing and give it its final name when the block succeeds.

    The data is fsynced before the rename and the directory after it. When the block raises,
    the temporary file is removed and whatever had the final name is untouched. A process
    that is killed leaves a hidden temporary file, never a partial file under the final name.

    Parameters
    ----------
    path
        The final name. An existing file is replaced.
    mode
        Permission bits before the umask; 0o600 for anything with a secret.

    Yields
    ------
    BinaryIO
        An unbuffered file, readable and writable.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:200]}{TEMPORARY_INFIX}{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "r+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o666) -> None:
    """Replace the content of `path` atomically; see :func:`atomic_write`."""
    with atomic_write(path, mode=mode) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def sync_directory(path: Path) -> None:
    """Make renames in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
