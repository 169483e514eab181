"""Starts a kernel in Gramine, on the host; what a ``sealbook-gramine-*`` kernelspec runs.

Run as ``python -I -B -m sealbook.jupyter.gramine_launcher --tee gramine-sgx --image DIRECTORY
--registration=tcp://...``. Nothing here is trusted: it makes the directory that Gramine runs in
(:mod:`sealbook.image.launch_directory`), hands over the address to register at, and stays to clean up.
Whether the image can run at all was looked at before, by the provisioner, whose errors a person sees.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from sealbook import paths
from sealbook.image.image import PROGRAM
from sealbook.image.launch_directory import launch_directory
from sealbook.image.manifest import IMAGE

#: From <linux/prctl.h>.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: All that the untrusted part of Gramine gets; the kernel inside gets nothing of it.
_ENVIRONMENT = ("PATH",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the kernel, wait for it and return its exit status."""
    options = _parser().parse_args(arguments)
    with launch_directory(
        paths.launch_dir(),
        image=options.image,
        work=Path.cwd(),
        data=options.data,
        registration=options.registration,
    ) as place:
        return supervise([options.tee, f"{IMAGE}/{PROGRAM}"], place)


def supervise(command: list[str], place: Path) -> int:
    """Run Gramine, and leave no process behind however it ends."""
    prctl = ctypes.CDLL(None).prctl
    # Processes that the kernel started become this one's children when the kernel dies, and end below.
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gramine = subprocess.Popen(
        command,
        cwd=place,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        stdin=subprocess.DEVNULL,
        # If somebody kills this process alone, Gramine ends too.
        preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sealbook.jupyter.gramine_launcher", description=__doc__)
    parser.add_argument("--tee", choices=("gramine-sgx", "gramine-direct"), required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--registration", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
