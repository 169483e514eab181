"""`sealbook seal|unseal|inspect|rekey`: sealed files, from the side of the keys' owner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sealbook.cli import console
from sealbook.cli.keys import _key_names
from sealbook.cli.options import Force, Json, context, size
from sealbook.errors import InputError, SealbookError

SUFFIX = ".sealed"

Context = Annotated[
    list[str] | None,
    typer.Option(
        "--context", "-c", metavar="NAME=VALUE", help="Public, bound to the content; may be repeated."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, max=64, help="Default: as many as help.")]


def seal(
    source: Annotated[Path, typer.Argument(help="The file to seal; it stays.")],
    target: Annotated[Path | None, typer.Argument(help=f"Default: SOURCE{SUFFIX}.")] = None,
    key: Annotated[
        str, typer.Option("--key", "-k", help="Key to seal with.", autocompletion=_key_names)
    ] = "",
    context_: Context = None,
    threads: Threads = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Seal a file, with any key of your keyring."""
    from sealbook import sealing
    from sealbook.broker.owner import OwnerKeys
    from sealbook.cli.keyring_access import user_audit, user_keyring

    if not key:
        raise InputError("Name the key to seal with: --key NAME; `sealbook keys list` shows them.")
    sealing.check_key_name(key)
    target = target or source.with_name(source.name + SUFFIX)
    bound = context(context_)
    _check_files(source, target, force=force)
    info = sealing.seal_file(
        source,
        target,
        key=key,
        keys=OwnerKeys(user_keyring(), user_audit()),
        context=bound,
        sealer={"attested": False},
        threads=threads,
        progress=not json,
    )
    if not console.emit({"path": str(target), **info.to_dict()}):
        console.line(f"Sealed {size(info.size)} as {target} with key {_keys(info)}.")


def unseal(
    source: Annotated[Path, typer.Argument(help="The sealed file; it stays.")],
    target: Annotated[Path | None, typer.Argument(help=f"Default: SOURCE without {SUFFIX}.")] = None,
    context_: Context = None,
    threads: Threads = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Unseal a file that was sealed with a key without a guard; others open in an attested kernel."""
    from sealbook import sealing
    from sealbook.broker.owner import OwnerKeys
    from sealbook.cli.keyring_access import user_audit, user_keyring

    if target is None:
        if source.suffix != SUFFIX:
            raise InputError(f"{source} does not end in {SUFFIX}: say where its content shall go.")
        target = source.with_suffix("")
    bound = context(context_)
    _check_files(source, target, force=force)
    info = sealing.unseal_file(
        source,
        target,
        keys=OwnerKeys(user_keyring(), user_audit()),
        context=bound,
        threads=threads,
        progress=not json,
    )
    if not console.emit({"path": str(target), **info.to_dict()}):
        console.line(f"Unsealed {size(info.size)} to {target}.")


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Sealed files.")],
    json: Json = False,
) -> None:
    """Show what sealed files say of themselves; without a key nothing of it is proven."""
    from sealbook import sealing

    infos = [(path, sealing.inspect(path)) for path in files]
    if console.emit([{"path": str(path), **info.to_dict()} for path, info in infos]):
        return
    for path, info in infos:
        rows: list[tuple[str, Any]] = [
            ("content", f"{size(info.size)}, codec {info.codec}"),
            ("key", _keys(info)),
            ("sealed at", f"{info.sealed_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("sealed by", ", ".join(f"{name}={value}" for name, value in (info.sealer or {}).items()) or "-"),
            ("context", ", ".join(f"{name}={value}" for name, value in (info.context or {}).items()) or "-"),
            ("algorithm", info.algorithm),
            ("file id", info.file_id),
        ]
        console.table(["", ""], rows, title=str(path))
    console.line("Read from the header without a key: not authenticated.")


def rekey(
    files: Annotated[list[Path], typer.Argument(help="Sealed files; only their headers are rewritten.")],
    to: Annotated[
        str,
        typer.Option("--to", help="Key whose current version shall open them.", autocompletion=_key_names),
    ] = "",
    json: Json = False,
) -> None:
    """Move sealed files to the current version of a key."""
    from sealbook import sealing
    from sealbook.broker.owner import OwnerKeys
    from sealbook.cli.keyring_access import user_audit, user_keyring

    if not to:
        raise InputError("Name the key to move to: --to NAME; `sealbook keys list` shows them.")
    sealing.check_key_name(to)
    keys = OwnerKeys(user_keyring(), user_audit(), rewrap_for=to)
    done: list[dict[str, Any]] = []
    failed: list[tuple[Path, SealbookError]] = []
    for path in files:
        try:
            info = sealing.rekey(path, keys=keys, to=to)
        except SealbookError as error:
            failed.append((path, error))
        else:
            done.append({"path": str(path), **info.to_dict()})
            console.line(f"{path} opens with key {_keys(info)} now.")
    if failed and len(files) == 1:
        raise failed[0][1]
    console.emit(
        {"rekeyed": done, "failed": [{"path": str(path), "error": str(error)} for path, error in failed]}
    )
    for path, refusal in failed:
        console.note(f"sealbook: {path}: {refusal}")
    if failed:
        raise typer.Exit(max(refusal.exit_code for _, refusal in failed))


def _check_files(source: Path, target: Path, *, force: bool) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the source itself: name another target.")
    if target.is_dir():
        raise InputError(f"{target} is a directory: name a file in it.")
    if target.exists() and not force:
        raise InputError(f"{target} exists: name another target, or say --force to replace it.")
    if not target.parent.is_dir():
        raise InputError(f"There is no directory {target.parent}: make it first.")


def _keys(info: Any) -> str:
    return ", ".join(f"{name} (version {version})" for name, version in info.keys)
