"""`sealbook cluster`: Spark clusters in which every node proved what it runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealbook.cli import console
from sealbook.cli.options import Force, Json
from sealbook.errors import InputError, RefusedError

if TYPE_CHECKING:
    from sealbook.broker.owners import Owner
    from sealbook.spark.cluster import BrokerCommand
    from sealbook.spark.gramine_nodes import GramineNodes
    from sealbook.spark.profiles import Profile

app = typer.Typer(help="Spark clusters in which every node proved what it runs.")
render = typer.Typer(help="Write what another system starts a cluster with.")
app.add_typer(render, name="render")

DEFAULT_NAME = "local"


def _known(incomplete: str) -> list[str]:
    from sealbook.spark import cluster_state

    return [name for name in cluster_state.names() if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="Of the cluster.", autocompletion=_known)]
Workers = Annotated[int, typer.Option("--workers", "-w", help="How many.")]
Cores = Annotated[int, typer.Option("--cores", help="Of each worker.")]
Memory = Annotated[str, typer.Option("--memory", help="Of each worker's executor, like 1500m or 2g.")]
Broker = Annotated[str | None, typer.Option("--broker", help="https://host:port of a broker that runs.")]
Authority = Annotated[
    Path | None, typer.Option("--ca", help="The certificate of its authority: broker/ca.pem on its machine.")
]
Owners = Annotated[
    list[str] | None,
    typer.Option("--owner", help="NAME=https://host:port of another owner's broker, for keys NAME/..."),
]
OwnerAuthorities = Annotated[
    list[str] | None,
    typer.Option("--owner-ca", help="NAME=FILE with the certificate of that broker's authority."),
]
Timeout = Annotated[int, typer.Option("--timeout", min=1, max=3600, help="Seconds after which to give up.")]
Image = Annotated[
    Path | None,
    typer.Option(
        "--image", help="Image of --role spark-worker: the nodes run in Gramine.", show_default="none"
    ),
]
Tee = Annotated[
    str, typer.Option("--tee", help="Of --image: gramine-sgx, or gramine-direct (to develop, not attested).")
]
Tables = Annotated[
    Path | None,
    typer.Option(
        "--tables", help="Sealed tables that nodes of --image see.", show_default="as the image says"
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address of this machine that the others reach.")]


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    workers: Workers = 2,
    cores: Cores = 1,
    memory: Memory = "1g",
    port: Annotated[int, typer.Option("--port", help="Of the master.")] = 7077,
    host: Host = "127.0.0.1",
    worker_host: Annotated[
        list[str] | None,
        typer.Option("--worker-host", help="Addresses of the workers, in turn.", show_default="--host"),
    ] = None,
    broker: Broker = None,
    ca: Authority = None,
    broker_port: Annotated[int, typer.Option("--broker-port", help="Of the broker that is started.")] = 8440,
    policy: Annotated[
        str | None, typer.Option("--policy", help="That admits the nodes of --image, with --broker-port.")
    ] = None,
    owner: Owners = None,
    owner_ca: OwnerAuthorities = None,
    image: Image = None,
    tee: Tee = "gramine-sgx",
    tables: Tables = None,
    timeout: Timeout = 90,
    json: Json = False,
) -> None:
    """Start a cluster on this machine: key broker, master and workers; returns when all are members."""
    from sealbook.broker.names import check_name
    from sealbook.spark import cluster

    check_name(name, "a cluster")
    size = cluster.Size(workers, cores, memory)
    if broker is not None and (owner or owner_ca):
        raise InputError(
            "Other owners are named to the broker of the cluster: `sealbook broker cluster owner` there."
        )
    owners = _owners(owner or [], owner_ca or [])
    gramine = gramine_nodes(image, tee, tables)
    if (policy is None) == (image is not None and broker is None):
        raise InputError("--policy says which policy admits the nodes of --image where a broker is started.")
    if broker is not None:
        start: Callable[[], BrokerCommand] | Profile = elsewhere(
            name, f"spark://{bracketed(host)}:{port}", broker, ca
        )
    else:
        if ca is not None:
            raise InputError("--ca belongs to --broker: say the address of the broker too.")
        cluster.check_fit(name, host, port, gramine)
        cluster.refuse_busy(host, broker_port, "--broker-port")
        # Before anything is measured: the first time, byte code is written.
        if policy is None:
            make_policy()
        start = functools.partial(broker_here, name, host, broker_port, policy, owners)
    profile = cluster.up(
        name,
        size,
        start,
        host=host,
        port=port,
        worker_hosts=worker_host or (),
        gramine=gramine,
        patience=timeout,
        say=console.note,
    )
    if not console.emit(
        {"name": name, "master": profile.master, "broker": profile.broker, "workers": workers}
    ):
        console.line(
            f"The cluster '{name}' runs: {profile.master}, {workers} workers, broker {profile.broker}. "
            f"`%scale cluster {name}` in a notebook uses it, `sealbook cluster down {name}` ends it."
        )


@app.command()
def join(
    broker: Broker = None,
    master: Annotated[str | None, typer.Option("--master", help="spark://host:port of the master.")] = None,
    ca: Authority = None,
    name: Annotated[str, typer.Option("--name", help="Of the cluster.")] = DEFAULT_NAME,
    host: Host = "127.0.0.1",
    image: Image = None,
    tee: Tee = "gramine-sgx",
    tables: Tables = None,
    cores: Cores = 1,
    memory: Memory = "1g",
    timeout: Timeout = 90,
    json: Json = False,
) -> None:
    """Make this machine a worker of a cluster that runs elsewhere; `cluster down` ends it."""
    from sealbook.spark import cluster

    if broker is None or master is None:
        raise InputError(
            "Say which cluster to join: --broker https://host:port and --master spark://host:port."
        )
    profile = elsewhere(name, master, broker, ca)
    size = cluster.Size(1, cores, memory)
    gramine = gramine_nodes(image, tee, tables)
    cluster.join(profile, host=host, size=size, gramine=gramine, patience=timeout, say=console.note)
    if not console.emit({"name": name, "master": master, "broker": broker, "host": host}):
        console.line(f"This machine is a worker of '{name}' now; `sealbook cluster down {name}` ends that.")


@app.command()
def down(name: Name = DEFAULT_NAME, json: Json = False) -> None:
    """End a cluster on this machine: every process, directory and its profile."""
    from sealbook.spark import cluster

    ended = cluster.down(name)
    if ended:
        _end_sessions(name)
    if not console.emit({"name": name, "ended": ended}):
        console.line(f"The cluster '{name}' has ended." if ended else f"There is no cluster '{name}' here.")


@app.command()
def status(name: Name = DEFAULT_NAME, json: Json = False) -> None:
    """Show every node of a cluster with its attestation, and every process of it here."""
    from sealbook.spark import cluster_state, profiles
    from sealbook.spark.known_nodes import known_nodes

    state = cluster_state.load(name)
    profile = profiles.load_all().get(name)
    if state is None and profile is None:
        raise InputError(f"There is no cluster '{name}' here: `sealbook cluster up {name}` starts one.")
    processes = [
        {"role": m.role, "address": m.address, "pid": m.pid, "alive": m.process.alive}
        for m in (state.members if state else ())
    ]
    nodes = known_nodes(name)
    document = {
        "name": name,
        "master": profile.master if profile else None,
        "broker": profile.broker if profile else None,
        "processes": processes,
        "nodes": nodes,
    }
    broken = any(not process["alive"] for process in processes)
    if console.emit(document):
        raise typer.Exit(int(broken))
    console.table(
        ["node", "address", "evidence", "measurement", "certificate until", "heard of"],
        [
            (
                each["role"],
                ", ".join(each["hosts"]),
                each["label"],
                (each["measurement"] or "-")[:16],
                each["certificate_until"][:19].replace("T", " ") + " UTC",
                _heard_of(each["silent_seconds"]),
            )
            for each in nodes
        ],
    )
    if not nodes and profile is not None and not any(p["role"] == "broker" for p in processes):
        console.line(f"Its nodes are known to its broker, {profile.broker}: `sealbook broker nodes` there.")
    elif not nodes:
        console.line("The broker on this machine knows no node of it.")
    console.table(
        ["process", "address", "pid", "runs"],
        [(p["role"], p["address"], p["pid"], "yes" if p["alive"] else "no") for p in processes],
    )
    if broken:
        raise RefusedError(
            f"Parts of it have ended: `sealbook cluster down {name}`, then `cluster up` again."
        )


@render.command()
def k8s(
    name: Annotated[str, typer.Argument(help="Of the cluster.")] = DEFAULT_NAME,
    image: Annotated[str, typer.Option("--image", help="Container image of nodes, by digest.")] = "",
    broker: Broker = None,
    ca: Authority = None,
    namespace: Annotated[str, typer.Option("--namespace")] = "sealbook",
    workers: Workers = 2,
    cores: Cores = 1,
    memory: Memory = "1g",
    epc: Annotated[
        str | None, typer.Option("--epc", help="SGX memory of a node, like 8Gi.", show_default="no SGX")
    ] = None,
    gramine_image: Annotated[
        str, typer.Option("--gramine-image", help="With --epc: where in the container image the nodes' is.")
    ] = "/opt/sealbook/node",
    tables: Annotated[
        str | None,
        typer.Option("--tables", help="CLAIM:/path of a volume with sealed tables.", show_default="none"),
    ] = None,
    drivers: Annotated[
        str | None,
        typer.Option("--drivers", help="Network of drivers outside, like 10.1.0.0/16.", show_default="none"),
    ] = None,
    master: Annotated[
        str | None,
        typer.Option("--master", help="spark://host:port for drivers.", show_default="that of the Service"),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also save the cluster's profile for notebooks of this user.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory.", show_default="standard output")
    ] = None,
    force: Force = False,
) -> None:
    """Write manifests of a cluster on Kubernetes; its broker runs elsewhere, on the data owner's machine."""
    from sealbook.broker.authorities import read_authority
    from sealbook.spark import kubernetes, profiles

    if broker is None or ca is None:
        raise InputError(
            "Say where the broker runs: --broker https://host:port and --ca FILE. It is in no manifest, "
            "because who runs the Kubernetes machines could read its keys there: run `sealbook broker serve` "
            "on the data owner's own machine."
        )
    wishes = kubernetes.Wishes(
        name=name,
        image=image,
        broker=broker,
        ca=read_authority(ca),
        namespace=namespace,
        workers=workers,
        cores=cores,
        memory=memory,
        epc=epc,
        gramine_image=gramine_image,
        tables=tables,
        drivers=drivers,
        master=master,
    )
    if profile:
        known = profiles.load_all().get(name)
        if known not in (None, wishes.profile) and not force:
            raise InputError(
                f"There is another cluster '{name}' for notebooks here: choose another name, or say --force."
            )
    manifests = kubernetes.render(wishes)
    if output is None:
        typer.echo("---\n".join(manifests.values()), nl=False)
    else:
        for path in kubernetes.write(manifests, output, force=force):
            console.line(f"Wrote {path}.")
    if profile:
        console.note(f"Wrote {profiles.save(wishes.profile)}.")
    for sentence in kubernetes.notes(wishes):
        console.note(sentence)


def elsewhere(name: str, master: str, broker: str, ca: Path | None) -> Profile:
    """Return the profile of a cluster whose broker runs elsewhere; without `ca` the one known already."""
    from sealbook.broker.authorities import read_authority
    from sealbook.spark.profiles import Profile, load_all

    known = load_all().get(name)
    if ca is None and (known is None or known.broker != broker):
        raise InputError(
            "Give the certificate of the broker's authority with --ca FILE: it is broker/ca.pem in "
            "the sealbook directory on the broker's machine."
        )
    pem = read_authority(ca) if ca is not None else known.ca  # type: ignore[union-attr]
    return Profile(name=name, master=master, broker=broker, ca=pem)


def _owners(brokers: Sequence[str], authorities: Sequence[str]) -> tuple[Owner, ...]:
    """Return the other data owners that options name."""
    from sealbook.broker.authorities import read_authority
    from sealbook.broker.owners import Owner

    urls = [each.partition("=")[::2] for each in brokers]
    files = [each.partition("=")[::2] for each in authorities]
    if sorted(name for name, _ in urls) != sorted(name for name, _ in files):
        raise InputError(
            "Give for each --owner NAME=https://host:port one --owner-ca NAME=FILE with the certificate of "
            "that broker's authority."
        )
    certificates = {name: read_authority(Path(file)) for name, file in files}
    return tuple(Owner(name, url, certificates[name]) for name, url in urls)


def bracketed(host: str) -> str:
    """Return a host as addresses have it."""
    return f"[{host}]" if ":" in host else host


def gramine_nodes(image: Path | None, tee: str, tables: Path | None) -> GramineNodes | None:
    """Return what nodes run in, from the three options; None for simulated enclaves."""
    from sealbook.spark.gramine_nodes import GramineNodes

    if image is not None:
        return GramineNodes.open(image, tee, tables)
    if tee != "gramine-sgx" or tables is not None:
        raise InputError("--tee and --tables belong to --image: say which image the nodes run.")
    return None


def broker_here(
    name: str, host: str, port: int, policy: str | None = None, owners: Sequence[Owner] = ()
) -> BrokerCommand:
    """Return how this user's broker is started, with the cluster made and this machine's code admitted."""
    import os

    from sealbook import paths
    from sealbook.broker import load_policy, open_keyring
    from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over, interactive
    from sealbook.broker.service.clusters import Clusters
    from sealbook.broker.service.database import open_database
    from sealbook.broker.service.partners import Partners
    from sealbook.cli.keyring_access import user_audit
    from sealbook.spark import cluster

    ask = interactive(confirm=not paths.keyring_file().exists())
    given: list[str] = []

    def passphrase() -> str:
        if not given:
            given.append(ask())
        return given[0]

    keyring = open_keyring(passphrase=passphrase)
    guard = policy or _POLICY
    if policy is not None:
        load_policy(policy)
    clusters = Clusters(keyring)
    clusters.add(name, policy=guard)
    user_audit().append("cluster", decision="added", cluster=name, guard=guard)
    partners = Partners(open_database())
    for owner in owners:
        partners.add_owner(name, owner)
        user_audit().append(
            "cluster", decision="owner added", cluster=name, owner=owner.name, broker=owner.broker
        )
    environment, descriptors = dict(os.environ), []
    if given:
        descriptor, environment[DESCRIPTOR_VARIABLE] = hand_over(given[0])
        descriptors.append(descriptor)
    return cluster.BrokerCommand(
        argv=(sys.executable, "-m", "sealbook", "broker", "serve", "--host", host, "--port", str(port)),
        url=f"https://{bracketed(host)}:{port}",
        ca=clusters.authority(),
        environment=environment,
        descriptors=tuple(descriptors),
        admit=_admit if policy is None else lambda measurement: None,
    )


#: Of this machine's simulated platform; `sealbook install` writes it.
_POLICY = "simulated"


def make_policy() -> None:
    """Write a policy for the code that is installed here, if there is none yet."""
    from sealbook.cli import machine
    from sealbook.cli.keyring_access import user_audit

    path = machine.policy_path()
    if path.exists():
        return
    measured = machine.measure_settled()
    machine.write_policy(path, machine.simulated_policy_text(measured))
    user_audit().append("policy", decision="approved", policy=str(path), measurement=measured.mrenclave.hex())


def _admit(measurement: bytes) -> None:
    """Refuse to go on where the policy does not admit the nodes of this machine.

    The broker would refuse each of them; this says it once, and what to do.
    """
    from sealbook.attestation.simulated import Measurement
    from sealbook.cli import machine

    fit = machine.check_policy(machine.policy_path(), Measurement(mrenclave=measurement))
    if not fit.ok:
        raise InputError(f"The policy admits no node of this machine: {fit.detail}; {fit.remedy}.")


def _heard_of(seconds: int) -> str:
    """Write for a person when a node was heard of last."""
    from sealbook.broker.client import SILENT_AFTER

    return "just now" if seconds <= SILENT_AFTER else f"{seconds // 60} min ago"


def _end_sessions(name: str) -> None:
    """Have the broker's records say that the nodes of a cluster which ended are members no more."""
    from sealbook.spark.known_nodes import known_nodes

    for node in known_nodes(name):
        from sealbook.broker.service.database import open_database
        from sealbook.broker.service.sessions import StoredSessions
        from sealbook.cli.keyring_access import user_audit

        user_audit().append("revoke", decision="done", session=node["session"], cluster=name)
        StoredSessions(open_database()).revoke(node["session"])
