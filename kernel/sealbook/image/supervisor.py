"""Stays beside a Gramine that runs, on the host, so that no process of it is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from pathlib import Path
from types import FrameType

import psutil

from sealbook import lifeline

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>

#: All that the untrusted part of Gramine gets; what runs inside gets nothing of it.
_ENVIRONMENT = ("PATH",)


def supervise(command: list[str], place: Path) -> int:
    """Run Gramine, and leave no process behind however it ends."""
    # Processes that the kernel started become this one's children when the kernel dies, and end below.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parent = os.getpid()
    gramine = subprocess.Popen(
        command,
        cwd=place,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        stdin=subprocess.DEVNULL,
        # If somebody kills this process alone, Gramine ends too.
        preexec_fn=lambda: lifeline.end_with(parent),
    )

    def end(number: int, frame: FrameType | None) -> None:
        gramine.kill()

    signal.signal(signal.SIGTERM, end)
    # A host's SIGINT would kill Gramine; interrupts go over the attested channel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return gramine.wait()
    finally:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it ended in between
                process.kill()
