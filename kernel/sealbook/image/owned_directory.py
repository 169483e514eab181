"""A temporary directory that is removed also if its maker is killed: by the next who makes such a one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"


@contextlib.contextmanager
def owned_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a directory for this process, and remove it afterwards; first remove what dead processes left.

    Parameters
    ----------
    parent
        Where it is made; must exist.
    prefix
        Of its name. Only directories with this prefix and a lock that nobody holds are removed.
    """
    with _alone(parent):
        _sweep(parent, prefix)
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Held as long as this process lives, so that nobody sweeps it.
        lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield place
    finally:
        os.close(lock)
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


def _sweep(parent: Path, prefix: str) -> None:
    for place in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            lock = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(lock)
