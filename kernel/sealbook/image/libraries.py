"""The shared libraries that programs of an image need from the system."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sealbook.image.tree import put, put_stripped

#: Where they go; the one directory in LD_LIBRARY_PATH.
DIRECTORY = PurePosixPath("/lib")

_NEEDED = re.compile(r"^\s+(\S+) => (/\S+) \(0x", re.MULTILINE)


def install(root: Path, binaries: Iterable[Path], runtime: Path) -> None:
    """Copy Gramine's C library, and of the system's libraries those that `binaries` are linked with.

    Parameters
    ----------
    binaries
        Where the programs and extension modules lie now, so that libraries beside them are found.
    runtime
        Gramine's C library, patched to call the library OS.
    """
    # With a version in their name: the others are for linking programs.
    own = {path.name for path in runtime.iterdir() if path.is_file() and ".so." in path.name}
    for name in sorted(own):
        put(runtime / name, root, DIRECTORY / name, mode=0o755)
    binaries = list(binaries)
    beside = {binary.name for binary in binaries}
    for name, path in sorted(_needed(binaries).items()):
        if name not in own and name not in beside:
            put_stripped(Path(path), root, DIRECTORY / name)


def _needed(binaries: list[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(binaries), 64):
        # The dynamic linker's own answer, including what RUNPATH means.
        done = subprocess.run(
            ["ldd", *map(str, binaries[start : start + 64])],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            check=False,
        )
        found |= dict(_NEEDED.findall(done.stdout))
    return found
