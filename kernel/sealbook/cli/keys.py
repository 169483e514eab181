"""`sealbook keys`: make, list, rotate, guard and delete keys. There is no command that shows one."""

from __future__ import annotations

from typing import Annotated

import typer

from sealbook.cli import console
from sealbook.cli.options import Json
from sealbook.errors import InputError

app = typer.Typer(help="The keys on this side, and the policies that guard them.")


def _key_names(incomplete: str) -> list[str]:
    # Completion may not ask for a passphrase in the middle of a line, so only an open keyring completes.
    try:
        from sealbook.broker import open_keyring

        return [record.name for record in open_keyring().list() if record.name.startswith(incomplete)]
    except Exception:
        return []


Name = Annotated[str, typer.Argument(help="`key` or `owner/key`.", autocompletion=_key_names)]
Guard = Annotated[
    str,
    typer.Option(
        "--guard",
        help="Policy (name or absolute path) a kernel must pass to get the key, or 'none' for a key that "
        "the `sealbook` command and every program of yours may use.",
    ),
]


@app.command()
def create(
    name: Name,
    guard: Guard = "simulated",
    description: Annotated[str, typer.Option(help="One line for people.")] = "",
    json: Json = False,
) -> None:
    """Make a new key."""
    from sealbook.cli.keyring_access import user_audit, user_keyring

    _check_guard(guard)
    record = user_keyring().create(name, guard=guard, description=description)
    user_audit().append("keys", decision="created", key=name, guard=guard)
    if not console.emit(record.to_dict()):
        console.line(f"Created key '{name}', guarded by {_shown(guard)}.")
        _warn_of_unattested(guard)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the keys."""
    from sealbook.cli.keyring_access import user_keyring

    ring = user_keyring()
    records = ring.list()
    if console.emit({"keyring": ring.store.label, "keys": [record.to_dict() for record in records]}):
        return
    if not records:
        console.line("There are no keys yet; `sealbook keys create NAME --guard POLICY` makes one.")
        return
    console.table(
        ["key", "guard", "version", "created", "description"],
        [
            (record.name, record.guard, record.current, record.versions[-1].created[:10], record.description)
            for record in records
        ],
    )


@app.command()
def rotate(name: Name, json: Json = False) -> None:
    """Give a key a new version, which seals from now on; files keep opening with the old ones."""
    from sealbook.cli.keyring_access import user_audit, user_keyring

    record = user_keyring().rotate(name)
    user_audit().append("keys", decision="rotated", key=name, version=record.current)
    if not console.emit(record.to_dict()):
        console.line(
            f"Key '{name}' has version {record.current} now; "
            f"`sealbook rekey FILE --to {name}` moves files over."
        )


@app.command()
def guard(
    name: Name,
    policy: Annotated[str, typer.Argument(help="Policy (name or absolute path), or 'none'.")],
    json: Json = False,
) -> None:
    """Have another policy guard a key."""
    from sealbook.cli.keyring_access import user_audit, user_keyring

    _check_guard(policy)
    ring = user_keyring()
    before = ring.record(name).guard
    record = ring.set_guard(name, policy)
    user_audit().append("keys", decision="guard changed", key=name, guard=policy, before=before)
    if not console.emit(record.to_dict()):
        console.line(f"Key '{name}' is guarded by {_shown(policy)} now, before by {_shown(before)}.")
        _warn_of_unattested(policy)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete a key with all its versions: what only it opens is lost for good."""
    from sealbook.cli.keyring_access import user_audit, user_keyring

    ring = user_keyring()
    ring.record(name)
    if not yes:
        _confirm(name)
    ring.delete(name)
    user_audit().append("keys", decision="deleted", key=name)
    if not console.emit({"deleted": name}):
        console.line(f"Deleted key '{name}'.")


def _confirm(name: str) -> None:
    import sys

    if not sys.stdin.isatty():
        raise InputError(f"Deleting '{name}' loses what only it opens: say --yes to mean it.")
    if not typer.confirm(f"Delete '{name}'? What only it opens is lost for good."):
        raise InputError("Nothing was deleted.")


def _check_guard(guard: str) -> None:
    """Refuse a guard whose policy does not exist or cannot be used: the key could never be released."""
    from sealbook.broker import UNGUARDED, load_policy

    if guard != UNGUARDED:
        load_policy(guard)


def _warn_of_unattested(guard: str) -> None:
    from sealbook.broker import UNGUARDED, load_policy

    if guard != UNGUARDED and not (policy := load_policy(guard)).attested:
        console.note(f"Kernels that are not attested ({policy.tee}) get this key: nothing protects it there.")


def _shown(guard: str) -> str:
    return "nothing: every process of yours may use it" if guard == "none" else f"policy '{guard}'"
