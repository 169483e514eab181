"""Makes the tables of TPC-H, in clear and sealed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def generate(directory: Path, scale: float) -> None:
    """Write the tables as Parquet, one directory with one file for each."""
    program = Path(sys.executable).with_name("tpchgen-cli")
    subprocess.run(
        [program, "parquet", "--scale-factor", str(scale), "--parts", "1", "--output-dir", directory],
        check=True,
        capture_output=True,
    )


def seal(plain: Path, sealed: Path, one: Callable[[Path, Path], None]) -> None:
    """Seal every file with `one` (source, target) under its own name, so that the same Parquet is read."""
    for path in sorted(plain.rglob("*.parquet")):
        target = sealed / path.relative_to(plain)
        target.parent.mkdir(parents=True, exist_ok=True)
        one(path, target)
