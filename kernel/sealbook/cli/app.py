"""The commands, one module for each group; a command's imports are made when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from sealbook import __version__
from sealbook.cli.audit import app as audit
from sealbook.cli.broker import app as broker
from sealbook.cli.cluster import app as cluster
from sealbook.cli.demo import demo
from sealbook.cli.doctor import doctor
from sealbook.cli.image import app as image
from sealbook.cli.install import install
from sealbook.cli.keys import app as keys
from sealbook.cli.lab import lab
from sealbook.cli.node import app as node
from sealbook.cli.policy import app as policy
from sealbook.cli.sealed import inspect, rekey, seal, unseal
from sealbook.cli.verify import verify

app = typer.Typer(
    help="Jupyter for data that nobody but the verified code may see.",
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


app.command("install")(install)
app.command("doctor")(doctor)
app.command("seal")(seal)
app.command("unseal")(unseal)
app.command("inspect")(inspect)
app.command("rekey")(rekey)
app.command("verify")(verify)
app.add_typer(policy, name="policy")
app.add_typer(keys, name="keys")
app.add_typer(image, name="image")
app.add_typer(audit, name="audit")
cluster.add_typer(node, name="node")
app.add_typer(cluster, name="cluster")
app.add_typer(broker, name="broker")
app.command("lab", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lab)
app.command("demo")(demo)
