"""Starts a kernel in Gramine, on the host; what a ``sealbook-gramine-*`` kernelspec runs.

Run as ``python -I -B -m sealbook.jupyter.gramine_launcher --tee gramine-sgx --image DIRECTORY
--registration=tcp://...``. Nothing here is trusted: it makes the directory that Gramine runs in
(:mod:`sealbook.image.launch_directory`), hands over the address to register at, and stays to clean up.
Whether the image can run at all was looked at before, by the provisioner, whose errors a person sees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sealbook import paths
from sealbook.image.image import PROGRAM
from sealbook.image.launch_directory import launch_directory
from sealbook.image.manifest import IMAGE
from sealbook.image.supervisor import supervise


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sealbook.jupyter.gramine_launcher", description=__doc__)
    parser.add_argument("--tee", choices=("gramine-sgx", "gramine-direct"), required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--registration", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
