"""Files that are either the old one or the new one, whatever is killed when; and bounded reads."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sealbook.errors import InputError

#: Temporary files lie beside their target (rename is atomic only within one file system),
#: hidden, and are recognised by this infix.
TEMPORARY_INFIX = ".sealbook-"

#: What file systems and kernels without O_TMPFILE answer (open(2)).
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a temporary file for writing and give it its final name when the block succeeds.

    The data is fsynced before it gets a name and the directory after it. When the block raises,
    nothing is left and whatever had the final name is untouched. The same where the process is
    killed, on file systems that have ``O_TMPFILE``; elsewhere a hidden file may be left over,
    never a partial one under the final name.

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
    descriptor, named = _open_temporary(temporary, mode)
    try:
        with open(descriptor, "r+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
            if not named:
                # Linking cannot replace a file, renaming can: the name is hidden for an instant.
                # The directory descriptor is ignored beside an absolute path, but makes Python call
                # linkat with AT_SYMLINK_FOLLOW, without which the link in /proc itself is linked.
                source = f"/proc/self/fd/{file.fileno()}"
                os.link(source, temporary, src_dir_fd=file.fileno(), follow_symlinks=True)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def _open_temporary(temporary: Path, mode: int) -> tuple[int, bool]:
    """Return a descriptor, and whether its file already has the temporary name."""
    try:
        # No name at all until it is complete. Needs /proc for linking it afterwards.
        if Path("/proc/self/fd").is_dir():
            return os.open(temporary.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode), False
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), True


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


def read_bounded(path: Path, what: str, max_bytes: int, *, regular: bool = False) -> bytes:
    """Read a file of bounded size; `what` begins the sentence of an error.

    Parameters
    ----------
    regular
        Take nothing but a regular file, and do not wait for anybody who might write to a pipe.

    Raises
    ------
    InputError
        It cannot be read, is larger, or is not of that kind.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting if regular else None) as file:
            if regular and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{what} {path} is not a regular file.")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}.") from None
    if len(data) > max_bytes:
        raise InputError(f"{what} {path} is larger than the {max_bytes} bytes that are accepted.")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
