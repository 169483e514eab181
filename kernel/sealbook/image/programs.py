"""The shell and the small tools that ``!cmd`` and subprocesses of a kernel find."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from sealbook.image.tree import put

DIRECTORY = PurePosixPath("/bin")

#: From the system, where they are installed. No compiler, no network client, nothing with privileges.
PROGRAMS = (
    *("sh", "bash", "env", "true", "false", "echo", "printf", "test", "sleep", "date", "pwd", "uname", "id"),
    *("ls", "cat", "cp", "mv", "rm", "mkdir", "rmdir", "touch", "stat", "du", "df", "wc", "head", "tail"),
    *("sort", "uniq", "cut", "tr", "grep", "sed", "find", "xargs", "tee", "basename", "dirname", "sha256sum"),
    *("tar", "gzip"),
)

#: What the C library and Python look up; the host's own files say things about the host.
_ETC = {
    "empty": "",
    "passwd": "root:x:0:0:root:/scratch:/bin/sh\n",
    "group": "root:x:0:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def install(root: Path) -> list[Path]:
    """Copy the programs that this system has; returns where they lie on the host."""
    found = []
    for name in PROGRAMS:
        source = shutil.which(name, path="/usr/bin:/bin")
        if source is not None:
            put(Path(source), root, DIRECTORY / name, mode=0o755)
            found.append(Path(source).resolve())
    for name, text in _ETC.items():
        target = root / "etc" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return found
