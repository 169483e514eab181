"""Puts files into the tree of an image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

from sealbook.errors import MissingDependencyError
from sealbook.image import elf


def put_stripped(source: Path, root: Path, place: PurePosixPath) -> None:
    """Copy a program or library of the system without its debugging information.

    A Python that was compiled on the machine can have 17 MB of it in its library, which every start of
    a kernel would read and hash, twice.

    Raises
    ------
    MissingDependencyError
        There is some, and no program to remove it.
    """
    target = put(source, root, place, mode=0o755)
    if b"\0.debug_info\0" not in target.read_bytes():
        return
    if shutil.which("strip") is None:
        raise MissingDependencyError(
            f"{source} has debugging information, which slows every start down, and there is no `strip` "
            "to remove it: run `apt install binutils`."
        )
    subprocess.run(["strip", "--strip-debug", str(target)], check=True, capture_output=True)


def put(source: Path, root: Path, place: PurePosixPath, *, mode: int = 0o644) -> Path:
    """Copy a file's content to a place in the tree at `root`; links are followed, libraries padded."""
    target = root / place.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    elf.pad(target)
    target.chmod(mode)
    return target
