"""A temporary directory that is removed also if its maker is killed: by the next who makes such a one."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_LOCK = "lock"
#: What its lock holds, so that no directory of somebody else is taken for one.
_MARKER = b"Made by sealbook (owned_directory); removed with all that is beside it when nobody locks it.\n"


@contextlib.contextmanager
def owned_directory(
    parent: Path, prefix: str, *, keep: Callable[[Path], bool] = lambda place: False
) -> Iterator[Path]:
    """Make a directory for this process, and remove it afterwards; first remove what dead processes left.

    Parameters
    ----------
    parent
        Where it is made; must exist.
    prefix
        Of its name. Only directories with this prefix and a lock of this module that nobody holds are
        removed.
    keep
        Asked before each is removed, also this one: whether it holds something that is nowhere else.
    """
    with _alone(parent):
        _sweep(parent, prefix, keep)
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Held as long as this process lives, so that nobody sweeps it.
        lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, _MARKER)
    try:
        yield place
    finally:
        os.close(lock)
        if not keep(place):
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Let one process at a time sweep and make: what is made and not locked yet looks left behind."""
    directory = os.open(parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _sweep(parent: Path, prefix: str, keep: Callable[[Path], bool]) -> None:
    for place in parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):
            lock = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_ours(lock) and not keep(place):
                    shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(lock)


def _is_ours(lock: int) -> bool:
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        return False
    return os.read(lock, len(_MARKER) + 1) == _MARKER
