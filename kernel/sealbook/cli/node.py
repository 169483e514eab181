"""`sealbook cluster node`: one node in the foreground, as containers and systemd start programs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealbook.cli.cluster import (
    DEFAULT_NAME,
    Authority,
    Broker,
    Cores,
    Host,
    Image,
    Memory,
    Tables,
    Tee,
    bracketed,
    elsewhere,
    gramine_nodes,
)
from sealbook.errors import InputError

if TYPE_CHECKING:
    from sealbook.spark.gramine_nodes import GramineNodes
    from sealbook.spark.profiles import Profile

app = typer.Typer(help="One node in the foreground, for containers and systemd.")

Name = Annotated[str, typer.Option("--name", help="Of the cluster.")]


@app.command()
def master(
    name: Name = DEFAULT_NAME,
    broker: Broker = None,
    ca: Authority = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 7077,
    image: Image = None,
    tee: Tee = "gramine-sgx",
    tables: Tables = None,
) -> None:
    """Be the master of a cluster until SIGTERM; ends with the status of its JVM."""
    from sealbook.spark.credentials import MASTER

    profile = _profile(name, f"spark://{bracketed(host)}:{port}", broker, ca)
    _run(profile, MASTER, host, port, gramine_nodes(image, tee, tables))


@app.command()
def worker(
    name: Name = DEFAULT_NAME,
    broker: Broker = None,
    ca: Authority = None,
    master: Annotated[str | None, typer.Option("--master", help="spark://host:port of the master.")] = None,
    host: Host = "127.0.0.1",
    cores: Cores = 1,
    memory: Memory = "1g",
    image: Image = None,
    tee: Tee = "gramine-sgx",
    tables: Tables = None,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, max=3600, help="Seconds to wait for the master.")
    ] = 300,
) -> None:
    """Be a worker of a cluster until SIGTERM; ends with the status of its JVM."""
    from sealbook.spark.credentials import WORKER

    if master is None:
        raise InputError("Say which master to work for: --master spark://host:port.")
    profile = dataclasses.replace(_profile(name, master, broker, ca), cores=cores, memory=memory)
    _run(profile, WORKER, host, 0, gramine_nodes(image, tee, tables), timeout)


def _profile(name: str, master: str, broker: str | None, ca: Path | None) -> Profile:
    if broker is None:
        raise InputError("Say which broker admits the nodes: --broker https://host:port.")
    return elsewhere(name, master, broker, ca)


def _run(
    profile: Profile, role: str, host: str, port: int, gramine: GramineNodes | None, patience: int = 1
) -> None:
    from sealbook.spark import foreground

    raise typer.Exit(foreground.run(profile, role, host=host, port=port, gramine=gramine, patience=patience))
