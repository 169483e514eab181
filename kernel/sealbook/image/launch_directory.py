"""The directory that one start of a kernel runs in: Gramine resolves all URIs of the manifest from there.

It holds links to the image, to the notebook's directory and to the data directory, the encrypted scratch
space, and the one file that the host hands to the kernel. Made by the launcher and removed by it; what a
killed launcher left is removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sealbook.encoding import canonical_json
from sealbook.image.manifest import DATA, IMAGE, REGISTRATION, SCRATCH, WORK

_PREFIX = "launch-"
_LOCK = "lock"


@contextlib.contextmanager
def launch_directory(
    parent: Path,
    *,
    image: Path,
    work: Path,
    data: Path | None,
    registration: str,
    data_key: str | None,
) -> Iterator[Path]:
    """Make the directory for one start, and remove it afterwards.

    Parameters
    ----------
    parent
        Where launch directories lie, on a file system with room for scratch files.
    work
        The notebook's directory.
    data
        What the encrypted data mount keeps its files in; None for an empty directory.
    registration
        Where the provisioner waits, ``tcp://host:port``.
    data_key
        Name of the key of the data mount.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(parent):
        _sweep(parent)
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        # Held as long as this process lives, so that nobody sweeps it.
        lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        (place / IMAGE).symlink_to(image.absolute(), target_is_directory=True)
        (place / WORK).symlink_to(work.absolute(), target_is_directory=True)
        (place / SCRATCH).mkdir()
        if data is None:
            (place / DATA).mkdir()
        else:
            (place / DATA).symlink_to(data.absolute(), target_is_directory=True)
        parameters = place / REGISTRATION
        parameters.parent.mkdir()
        parameters.write_bytes(canonical_json({"registration": registration, "data_key": data_key}))
        yield place
    finally:
        os.close(lock)
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Let one launcher at a time sweep and make: what is made and not locked yet looks left behind."""
    directory = os.open(parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _sweep(parent: Path) -> None:
    """Remove what launchers that were killed left behind: encrypted, under keys that are gone."""
    for place in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(lock)
