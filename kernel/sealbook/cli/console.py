"""What commands print: tables and sentences for a person, or one JSON document with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass
class _State:
    json_output: bool = False


_state = _State()


def begin(*, json_output: bool) -> None:
    """Say, before a command is known, whether its caller wants JSON; errors follow it too."""
    _state.json_output = json_output


def emit(document: Any) -> bool:
    """Print `document` if the caller wants JSON; returns whether it did."""
    if _state.json_output:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")
    return _state.json_output


def line(text: str, style: str = "") -> None:
    """Print one line for a person, however long; nothing with `--json`."""
    if not _state.json_output:
        _console().print(Text(printable(text), style), soft_wrap=True)


def note(text: str) -> None:
    """Print a remark to stderr, so that it is seen and in no one's pipe."""
    sys.stderr.write(printable(text) + "\n")


def error(text: str) -> None:
    """Print why a command ended: one line on stderr, and with `--json` a document on stdout."""
    emit({"error": text})
    note(f"sealbook: {text}")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table for a person; nothing with `--json`."""
    if _state.json_output:
        return
    grid = Table(*columns, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    _console().print(grid)


def printable(text: str) -> str:
    """Escape what would move the terminal's cursor: names and log entries come from elsewhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _console() -> Console:
    # Made anew each time, because sys.stdout may be another one; piped output is not folded to 80 columns.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
