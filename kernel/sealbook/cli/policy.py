"""`sealbook policy`: write, explain and show attestation policies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealbook.cli import console
from sealbook.cli.options import Force, Json
from sealbook.errors import InputError

if TYPE_CHECKING:
    from sealbook.attestation import Policy

#: What a policy trusts, for a person.
_ROOTS = {"intel": "intel", "simulated": "simulated", "none": "none: not attested"}

app = typer.Typer(help="Attestation policies: which evidence is good enough.")


def _policy_names(incomplete: str) -> list[str]:
    from sealbook import paths

    return sorted(path.stem for path in paths.policy_dir().glob("*.toml") if path.stem.startswith(incomplete))


Which = Annotated[
    str, typer.Argument(metavar="POLICY", help="Name or file of a policy.", autocompletion=_policy_names)
]


def find(which: str) -> Path:
    """Return the file of a policy given by file name, or by the name that guards use."""
    from sealbook.broker import policy_file

    given = Path(which)
    if given.is_file() or len(given.parts) > 1 or given.suffix == ".toml":
        if not given.is_file():
            named = policy_file(which) if len(given.parts) == 1 else given
            if not named.is_file():
                raise InputError(f"There is no policy {which}.")
            return named
        return given
    path = policy_file(which)
    if not path.is_file():
        known = ", ".join(_policy_names("")) or "none yet"
        raise InputError(
            f"There is no policy '{which}'; there are: {known}. `sealbook policy init` writes one."
        )
    return path


@app.command()
def init(
    name: Annotated[
        str | None, typer.Argument(help="Name of the policy.", show_default="simulated, or the tee's name")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here, not among your policies.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="Key it may release, '*' at the end for anything; may be repeated."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 365,
    mrenclave: Annotated[
        str | None, typer.Option(help="Measurement (64 hex digits); default: of the code installed here.")
    ] = None,
    intel: Annotated[
        bool, typer.Option("--intel", help="For SGX hardware under Intel's root; needs --mrenclave.")
    ] = False,
    tee: Annotated[
        str,
        typer.Option(
            help="'sgx', or 'gramine-direct': for kernels in Gramine without SGX, which are NOT attested."
        ),
    ] = "sgx",
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a policy for this machine: its simulated platform, and the code installed now."""
    from datetime import UTC, datetime

    from sealbook.attestation import UNATTESTED_TEES, Policy, policy_text
    from sealbook.attestation.simulated import Measurement
    from sealbook.broker import UNGUARDED, policy_file
    from sealbook.cli import machine

    unattested = tee in UNATTESTED_TEES
    if tee != "sgx" and not unattested:
        raise InputError(f"'{tee}' is not a tee: say sgx or {' or '.join(UNATTESTED_TEES)}.")
    if unattested and (intel or mrenclave is not None):
        raise InputError(f"A kernel of tee {tee} is not attested: leave out --intel and --mrenclave.")
    if name is None:
        name = tee if unattested else machine.SIMULATED_POLICY
    if unattested and name == machine.SIMULATED_POLICY:
        raise InputError(
            f"The policy '{name}' is that of this machine's simulated kernel: choose another name."
        )
    if name == UNGUARDED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(f"'{name}' is not a policy name: use letters, digits, '.', '_' and '-'.")
    path = output or policy_file(name)
    if mrenclave is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", mrenclave):
        raise InputError("A measurement is 64 hexadecimal digits.")
    if intel and mrenclave is None:
        raise InputError("Say which enclave: --mrenclave, as `gramine-sgx-sigstruct-view` prints it.")
    if path.exists() and not force:
        raise InputError(f"{path} exists: say --force to replace it (the old one is kept beside it).")
    if not path.absolute().parent.is_dir():
        raise InputError(f"There is no directory {path.absolute().parent}: make it first.")
    keys = tuple(key or ("*",))
    if unattested:
        text = policy_text(tee=tee, id=name, now=datetime.now(UTC), days=days, keys=keys)
    elif intel:
        text = policy_text(
            id=name,
            mrenclave=bytes.fromhex(mrenclave or ""),
            root=None,
            now=datetime.now(UTC),
            days=days,
            keys=keys,
        )
    else:
        measured = Measurement(bytes.fromhex(mrenclave)) if mrenclave else machine.measure_settled()
        text = machine.simulated_policy_text(measured, name=name, days=days, keys=keys)
    machine.write_policy(path, text)
    policy = Policy.load(path)
    if not console.emit({"path": str(path), **_identity(policy)}):
        console.line(f"Wrote {path}; `sealbook policy explain {output or name}` says what it admits.")
        if not policy.attested:
            console.note(f"It admits kernels that are not attested ({tee}): nothing protects what they get.")


@app.command()
def explain(which: Which = "simulated", json: Json = False) -> None:
    """Say in sentences what a policy admits."""
    from sealbook.attestation import Policy

    policy = Policy.load(find(which))
    sentences = policy.explain()
    if not console.emit(_identity(policy) | {"admits": sentences}):
        for sentence in sentences:
            console.line(sentence)


@app.command()
def show(which: Which = "simulated", json: Json = False) -> None:
    """Print a policy's file, after checking it."""
    import tomllib

    from sealbook.attestation import Policy

    path = find(which)
    policy = Policy.load(path)
    text = path.read_text()
    if not console.emit({"path": str(path), "digest": policy.digest, "policy": tomllib.loads(text)}):
        typer.echo(text, nl=False)
        console.note(f"# {path}, digest {policy.digest}")


@app.command("list")
def list_(json: Json = False) -> None:
    """List your policies."""
    from sealbook.attestation import Policy
    from sealbook.broker import policy_file
    from sealbook.errors import SealbookError

    rows = []
    for name in _policy_names(""):
        try:
            policy = Policy.load(policy_file(name))
            expires = policy.expires.date().isoformat()
            rows.append(
                {
                    "name": name,
                    "tee": policy.tee,
                    "root": policy.trust_root.kind,
                    "expires": expires,
                    "problem": None,
                }
            )
        except SealbookError as error:
            rows.append({"name": name, "tee": None, "root": None, "expires": None, "problem": str(error)})
    if not console.emit({"policies": rows}):
        console.table(
            ["policy", "tee", "root", "expires", "problem"],
            [
                (
                    row["name"],
                    row["tee"] or "-",
                    _ROOTS.get(row["root"] or "", "-"),
                    row["expires"] or "-",
                    row["problem"] or "",
                )
                for row in rows
            ],
        )


def _identity(policy: Policy) -> dict[str, Any]:
    """Return what names a policy for programs, and how much it asks for."""
    return {
        "id": policy.id,
        "digest": policy.digest,
        "tee": policy.tee,
        "attested": policy.attested,
        "simulated": policy.simulated,
    }
