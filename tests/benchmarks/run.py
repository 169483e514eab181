"""Measure everything the README gives as a ratio, and print it as one table.

Every ``bench_*.py`` beside this file has a ``measure(quick)`` that returns rows; each row names its
baseline, measured in the same run. ``--readme`` writes the table into README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"
_HOLDS = {True: "yes", False: "**no**", None: "not judged"}
COLUMNS = ("name", "value", "baseline", "ratio", "target", "holds", "note")


def rows(pattern: str, quick: bool) -> list[dict[str, Any]]:
    """Run the benchmarks whose file name contains `pattern`."""
    found: list[dict[str, Any]] = []
    for path in sorted(HERE.glob("bench_*.py")):
        if pattern not in path.name:
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        print(f"{path.stem} ...", file=sys.stderr, flush=True)
        found += module.measure(quick=quick)
    return found


def markdown(measured: list[dict[str, Any]]) -> str:
    """Return the table as the README shows it."""
    lines = ["| measure | sealbook | baseline | ratio | target | holds | |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['name']} | {r['value']} | {r['baseline']} | {r['ratio']} | {r['target']} | "
        f"{_HOLDS[r['holds']]} | {r['note']} |"
        for r in measured
    ]
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join([*lines, "", f"One run of `make bench` on {where}."])


def main() -> None:
    """Print the table; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="", help="only files whose name contains this")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args()
    measured = rows(options.pattern, options.quick)
    if options.json:
        print(json.dumps(measured, indent=2))
    else:
        table = Table(*COLUMNS)
        for row in measured:
            table.add_row(*(str(row.get(column, "")) for column in COLUMNS))
        Console(width=None if sys.stdout.isatty() else 200).print(table)
    if options.readme:
        text = README.read_text()
        block = f"<!-- bench -->\n{markdown(measured)}\n<!-- /bench -->"
        README.write_text(re.sub(r"<!-- bench -->.*<!-- /bench -->", lambda _: block, text, flags=re.DOTALL))
    # None: could not be judged on this machine; the note says why.
    sys.exit(any(row["holds"] is False for row in measured))


if __name__ == "__main__":
    main()
