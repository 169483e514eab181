"""Arguments that several commands share, and how their text becomes a value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from sealbook.errors import InputError

#: Read from the command line by :func:`sealbook.cli.main`; here so that `--help` and completion know it.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


def context(pairs: list[str] | None) -> dict[str, str] | None:
    """Turn ``NAME=VALUE`` texts into a sealing context; None when there are none."""
    if not pairs:
        return None
    result: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"'{pair}' is not a context: write NAME=VALUE.")
        if name in result:
            raise InputError(f"The context has '{name}' twice.")
        result[name] = value
    return result


def time(text: str | None) -> datetime:
    """Turn ISO 8601 into an aware time; UTC if it names no zone, now if there is none."""
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"'{text}' is not a time: write it like 2026-11-23T12:00:00Z.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def size(count: int) -> str:
    """Write a number of bytes for a person."""
    value, units = float(count), ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1024 or unit == units[-1]:
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
