"""What `sealbook doctor` finds, and the machine it looks at."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

OK, MISSING, TODO = "ok", "missing", "to do"

#: Most bytes that are read of a file of the machine; /proc/cpuinfo of many processors is longer, and alike.
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes
    ----------
    status
        "ok"; "missing" for what only some uses need; "to do" for what sealbook, or a kernel that is
        installed here, does not work without.
    remedy
        The command, or what else, that mends it; never empty unless `status` is "ok".
    """

    subject: str
    status: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Machine:
    """The machine that is examined; tests put a stand-in in its place.

    Attributes
    ----------
    root
        Where /dev, /proc, /sys and /etc lie.
    search_path
        Directories of programs, as in PATH; None for this process's.
    kernel_dirs
        Where kernelspecs are looked for; None for Jupyter's own directories.
    environment
        Where SEALBOOK_PCCS may stand.
    """

    root: Path = Path("/")
    search_path: str | None = None
    kernel_dirs: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def at(self, path: str) -> Path:
        """Return where the absolute `path` of the machine lies."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        """Return the beginning of a small file as text; empty if it cannot be read."""
        try:
            with open(self.at(path), "rb") as file:
                return file.read(_MAX_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def program(self, name: str) -> str | None:
        """Return where a program is, or None."""
        return shutil.which(name, path=self.search_path)

    def first_line(self, command: Sequence[str], *, seconds: float = 10) -> str:
        """Return the first line a program prints; Java prints its version to stderr."""
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return ""
        return (done.stdout or done.stderr).strip().partition("\n")[0][:100]
