"""The commands, one module for each group; a command's imports are made when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from sealbook import __version__
from sealbook.cli import audit, demo, doctor, install, keys, lab, policy, sealed, verify

app = typer.Typer(
    help="Jupyter for data that nobody but the verified code may see.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sealbook {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("install")(install.install)
app.command("doctor")(doctor.doctor)
app.command("seal")(sealed.seal)
app.command("unseal")(sealed.unseal)
app.command("inspect")(sealed.inspect)
app.command("rekey")(sealed.rekey)
app.command("verify")(verify.verify)
app.add_typer(policy.app, name="policy")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.command("lab", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lab.lab)
app.command("demo")(demo.demo)
