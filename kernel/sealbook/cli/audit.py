"""`sealbook audit`: show the broker's decisions, and check that none was changed or removed."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from sealbook.cli import console
from sealbook.cli.options import Json
from sealbook.errors import InputError

app = typer.Typer(help="The log of every decision about a key.")

_SHOWN_APART = ("seq", "time", "event", "decision", "key", "reasons", "previous", "hash")


@app.command()
def show(
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="Only the newest so many.")] = 20,
    event: Annotated[str | None, typer.Option(help="Only entries of this event.")] = None,
    key: Annotated[str | None, typer.Option(help="Only entries about this key.")] = None,
    json: Json = False,
) -> None:
    """Show entries, oldest first."""
    from collections import deque

    from sealbook.cli.keyring_access import user_audit

    log = user_audit()
    found = deque(
        (
            entry
            for entry in log.entries()
            if (event is None or entry.get("event") == event) and (key is None or entry.get("key") == key)
        ),
        maxlen=last,
    )
    verdict = log.verify()
    if console.emit({"entries": list(found), "head": verdict.head, "ok": verdict.ok}):
        return
    console.table(
        ["seq", "time (UTC)", "event", "decision", "key", "facts"],
        [
            (
                entry.get("seq", ""),
                str(entry.get("time", ""))[:19],
                entry.get("event", ""),
                entry.get("decision", ""),
                entry.get("key", ""),
                _facts(entry),
            )
            for entry in found
        ],
    )
    if not verdict.ok:
        console.note(f"The log is not whole: {verdict.problem}")


@app.command()
def verify(
    head: Annotated[
        str | None, typer.Option(help="Hash of an entry noted down earlier, which must still be there.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the chain of hashes; exit status 1 if the log was changed."""
    from sealbook.cli.keyring_access import user_audit

    if head is not None and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise InputError(
            "A head is 64 lower-case hexadecimal digits, as `sealbook audit show --json` prints it."
        )
    verdict = user_audit().verify(expected_head=head)
    document = {
        "ok": verdict.ok,
        "entries": verdict.entries,
        "head": verdict.head,
        "problem": verdict.problem,
    }
    if not console.emit(document):
        if verdict.ok:
            console.line(f"The audit log is whole: {verdict.entries} entries, head {verdict.head}.")
        else:
            console.line(f"The audit log was changed: {verdict.problem}", "bold red")
    if not verdict.ok:
        raise typer.Exit(1)


def _facts(entry: dict[str, Any]) -> str:
    facts = [f"{name}={_short(value)}" for name, value in sorted(entry.items()) if name not in _SHOWN_APART]
    return " ".join([*map(str, entry.get("reasons") or ()), *facts])


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch(r"[0-9a-f]{32,}", text) else text
