"""Ends what a test run left running, also when the run was killed: a process that outlives it for a moment.

``python guardian.py HOME DIRECTORY``: waits until its standard input ends, which happens with whoever
started it, and then ends every process with ``SEALBOOK_HOME=HOME`` in its environment or DIRECTORY in
its command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def guard(home: Path, directory: Path) -> subprocess.Popen:
    """Start a guardian, in a session that no Ctrl-C reaches; it works once its standard input is closed."""
    command = [sys.executable, "-I", "-B", __file__, home, directory]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def left(home: str, directory: str) -> list[int]:
    """Return the processes that belong to a home or a directory."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            process = Path("/proc") / name
            variables = (process / "environ").read_bytes().split(b"\0")
            theirs = f"SEALBOOK_HOME={home}".encode() in variables
            if int(name) != os.getpid() and (
                theirs or f"{directory}/".encode() in (process / "cmdline").read_bytes()
            ):
                found.append(int(name))
    return found


def main() -> None:
    home, directory = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    for number in (signal.SIGTERM, *[signal.SIGKILL] * 50):
        processes = left(home, directory)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not processes:
            break
        time.sleep(2 if number == signal.SIGTERM else 0.1)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
