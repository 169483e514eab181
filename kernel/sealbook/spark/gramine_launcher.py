"""Starts a node in Gramine, on the host: ``python -I -B -m sealbook.spark.gramine_launcher ...``.

Nothing here is trusted, as with :mod:`sealbook.jupyter.gramine_launcher`: it makes the directory that Gramine
runs in, puts the node's plan there, and stays to clean up.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sealbook import paths
from sealbook.encoding import parse_json
from sealbook.files import read_bounded
from sealbook.image.image import PROGRAM
from sealbook.image.launch_directory import launch_directory
from sealbook.image.manifest import IMAGE
from sealbook.image.supervisor import supervise

_MAX_PLAN_BYTES = 128 * 1024


def command(tee: str, image: Path, tables: Path, plan: Path) -> list[str]:
    """Return what starts a node in Gramine, behind the interpreter and its flags."""
    return [
        *("-m", "sealbook.spark.gramine_launcher", "--tee", tee),
        *("--image", str(image), "--tables", str(tables), "--plan", str(plan)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the node, wait for it and return its exit status."""
    options = _parser().parse_args(arguments)
    plan = parse_json(
        read_bounded(options.plan, "The node's plan", _MAX_PLAN_BYTES, regular=True),
        what="The node's plan",
        max_bytes=_MAX_PLAN_BYTES,
    )
    with launch_directory(
        paths.launch_dir(), image=options.image, work=options.tables, data=None, registration=plan
    ) as place:
        return supervise([options.tee, f"{IMAGE}/{PROGRAM}"], place)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sealbook.spark.gramine_launcher", description=__doc__)
    parser.add_argument("--tee", choices=("gramine-sgx", "gramine-direct"), required=True)
    for name in ("--image", "--tables", "--plan"):
        parser.add_argument(name, type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
