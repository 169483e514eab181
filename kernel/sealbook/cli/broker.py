"""`sealbook broker`: the key broker as a service, its clusters and the nodes that they admitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealbook import paths
from sealbook.cli import console
from sealbook.cli.options import Json
from sealbook.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from sealbook.broker.service.clusters import Clusters
    from sealbook.broker.service.partners import Partners
    from sealbook.broker.service.sessions import StoredSessions

app = typer.Typer(help="The key broker as a service, for nodes that prove what they are.")
cluster_app = typer.Typer(help="Clusters: which policy admits their nodes.")
app.add_typer(cluster_app, name="cluster")


ClusterName = Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8440,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policy that admits nodes without a cluster; may be repeated."),
    ] = None,
    san: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that nodes reach this broker by; may be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What evidence is made for; default: from the broker's own key.")
    ] = None,
    certificate_minutes: Annotated[
        int, typer.Option(min=1, max=7 * 24 * 60, help="For how long a node's certificate is valid.")
    ] = 60,
    ready_fd: Annotated[
        int | None,
        typer.Option(
            min=3, help="Write one line of JSON (url, name, ca) to this descriptor when it answers."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Answer nodes until SIGTERM or Ctrl+C."""
    server_module = _server_module()
    from sealbook.attestation import CollateralMemory
    from sealbook.attestation.endorsements import user_endorsements
    from sealbook.broker.guards import load_policy
    from sealbook.broker.service.database import open_database
    from sealbook.broker.service.service import BrokerService
    from sealbook.cli.keyring_access import user_audit, user_keyring

    local = _is_loopback(host)
    for each in policy or ():
        # A policy that cannot be used is noticed now and not by a node.
        if not load_policy(each).attested and not local:
            raise InputError(
                f"The policy '{each}' asks for no evidence, which would admit everybody who reaches {host}: "
                "use one that asks for it, or --host 127.0.0.1."
            )
    service = BrokerService(
        user_keyring(),
        user_audit(),
        user_endorsements(),
        open_database(),
        policies=policy or (),
        name=name,
        hosts=_hosts(host, san or []),
        certificate_seconds=certificate_minutes * 60,
        unattested=local,
        memory=CollateralMemory(paths.data_dir() / "collateral-memory.json"),
    )
    server = server_module.BrokerServer(service, host=host, port=port)
    ca = _write_ca(service.ca_pem)
    facts = {"url": server.url, "name": service.name, "ca": str(ca)}
    server.run(lambda: _say_ready(facts, ready_fd))
    console.line("The broker has ended.")


@app.command()
def nodes(json: Json = False) -> None:
    """List the nodes whose session is alive."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    found = _sessions().alive(now)
    rows = [
        {
            "session": node.session,
            "role": node.role,
            "cluster": node.cluster,
            "policy": node.policy,
            "certificate_expires": node.certificate_expires.isoformat(timespec="seconds"),
            "silent_seconds": int(node.silence(now)),
        }
        for node in found
    ]
    if console.emit({"nodes": rows}):
        return
    if not rows:
        console.line("No node has a session now.")
        return
    console.table(list(rows[0]), [tuple(row.values()) for row in rows])


@app.command()
def revoke(
    session: Annotated[str, typer.Argument(help="As `sealbook broker nodes` names it.")], json: Json = False
) -> None:
    """Put a node out: it gets no key and no certificate any more, and the others drop it."""
    from sealbook.cli.keyring_access import user_audit

    sessions = _sessions()
    # The record comes first: what is not in it does not happen.
    if not sessions.known(session):
        raise InputError(
            f"There is no session '{session[:64]}' that could be revoked; see `sealbook broker nodes`."
        )
    user_audit().append("revoke", decision="done", session=session)
    sessions.revoke(session)
    if not console.emit({"revoked": session}):
        console.line(f"Revoked session {session}.")


@cluster_app.command("add")
def add_cluster(
    name: ClusterName,
    policy: Annotated[str, typer.Option(help="Policy (name or absolute path) that admits the nodes.")],
    home_ca: Annotated[
        Path | None,
        typer.Option(
            help="For a cluster of another broker, whose nodes come here for keys: its broker/ca.pem.",
            show_default="one of this broker",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a cluster, or have another policy admit its nodes."""
    from sealbook.broker.authorities import read_authority
    from sealbook.broker.certificates import authority_id
    from sealbook.broker.guards import load_policy
    from sealbook.cli.keyring_access import user_audit

    load_policy(policy)
    home = authority_id(read_authority(home_ca)) if home_ca is not None else b""
    clusters = _clusters()
    clusters.add(name, policy=policy)
    ca = _write_ca(clusters.authority())
    _partners().set_home(name, home)
    user_audit().append("cluster", decision="added", cluster=name, guard=policy, home=home.hex())
    if not console.emit({"cluster": name, "policy": policy, "home": home.hex(), "ca": str(ca)}):
        whose = "" if home_ca is None else f" of the broker of {home_ca}"
        console.line(
            f"The policy '{policy}' admits the nodes of cluster '{name}'{whose}; they, and other owners, "
            f"trust this broker by {ca}."
        )


@cluster_app.command("owner")
def add_owner(
    name: ClusterName,
    owner: Annotated[str, typer.Argument(help="What the names of their keys begin with: OWNER/...")],
    broker: Annotated[str | None, typer.Option(help="https://host:port of their broker.")] = None,
    ca: Annotated[
        Path | None, typer.Option(help="The certificate of its authority: their broker/ca.pem.")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Nodes that attest from now on do not go there.")
    ] = False,
    json: Json = False,
) -> None:
    """Have the nodes of a cluster get keys named OWNER/... from another data owner's broker."""
    from sealbook.broker.authorities import read_authority
    from sealbook.broker.owners import Owner
    from sealbook.cli.keyring_access import user_audit

    _clusters().find(name)
    if remove == (broker is not None and ca is not None) or (remove and (broker or ca)):
        raise InputError("Name the owner's --broker and its --ca, or --remove.")
    if remove:
        _partners().remove_owner(name, owner)
    else:
        assert broker is not None  # noqa: S101 - for the type checker
        assert ca is not None  # noqa: S101
        _partners().add_owner(name, Owner(owner, broker, read_authority(ca)))
    decision = "owner removed" if remove else "owner added"
    user_audit().append("cluster", decision=decision, cluster=name, owner=owner, broker=broker or "")
    if not console.emit({"cluster": name, "owner": owner, "broker": broker}):
        console.line(
            f"Nodes of cluster '{name}' that start from now on get no keys named {owner}/... any more."
            if remove
            else f"Nodes of cluster '{name}' that start from now on get keys named {owner}/... from {broker}."
        )


@cluster_app.command("list")
def list_clusters(json: Json = False) -> None:
    """List the clusters."""
    rows: list[dict[str, Any]] = [
        {"cluster": each.name, "policy": each.policy, "version": each.version, "since": each.created}
        for each in _clusters().list()
    ]
    if console.emit({"clusters": rows}):
        return
    if not rows:
        console.line(
            "There are no clusters yet; `sealbook broker cluster add NAME --policy POLICY` makes one."
        )
        return
    console.table(list(rows[0]), [tuple(row.values()) for row in rows])


@cluster_app.command("rotate")
def rotate_cluster(name: ClusterName, json: Json = False) -> None:
    """Give a cluster a new secret: its nodes are members no more until they attest again."""
    from sealbook.cli.keyring_access import user_audit

    version = _clusters().rotate(name)
    user_audit().append("cluster", decision="rotated", cluster=name, version=version)
    if not console.emit({"cluster": name, "version": version}):
        console.line(f"Cluster '{name}' has a new secret (version {version}); start its nodes again.")


@cluster_app.command("remove")
def remove_cluster(name: ClusterName, json: Json = False) -> None:
    """Remove a cluster: its nodes are members of nothing."""
    from sealbook.cli.keyring_access import user_audit

    _clusters().remove(name)
    _partners().forget(name)
    user_audit().append("cluster", decision="removed", cluster=name)
    if not console.emit({"removed": name}):
        console.line(f"Removed cluster '{name}'.")


def _server_module() -> Any:
    try:
        from sealbook.broker.service import server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn", "h11", "anyio"):
            raise
        raise MissingDependencyError(
            f"The broker service needs {error.name}, which is not installed: "
            "`pip install 'sealbook[service]'`."
        ) from None
    return server


def _hosts(host: str, named: list[str]) -> list[str]:
    """Return what the broker's certificate names: what it listens at, unless that is everything."""
    import socket

    local = ["localhost", "127.0.0.1", "::1"]
    here = [socket.gethostname()] if host in ("0.0.0.0", "::") else [host]  # noqa: S104 - compared, not bound
    return list(dict.fromkeys([*named, *here, *local]))


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _write_ca(ca_pem: str) -> Path:
    """Write what clients trust, which is public, where they find it."""
    from sealbook import files

    path = paths.data_dir() / "broker" / "ca.pem"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_bytes(path, ca_pem.encode(), mode=0o644)
    return path


def _say_ready(facts: dict[str, str], descriptor: int | None) -> None:
    from sealbook.encoding import canonical_json

    if descriptor is not None:
        try:
            with open(descriptor, "wb") as file:
                file.write(canonical_json(facts) + b"\n")
        except OSError as error:
            console.note(
                f"Nobody was told that the broker is ready: descriptor {descriptor}, {error.strerror}."
            )
    if not console.emit(facts):
        console.line(f"The broker '{facts['name']}' answers at {facts['url']}; clients trust {facts['ca']}.")
    import sys

    sys.stdout.flush()


def _clusters() -> Clusters:
    from sealbook.broker.service.clusters import Clusters
    from sealbook.cli.keyring_access import user_keyring

    return Clusters(user_keyring())


def _partners() -> Partners:
    from sealbook.broker.service.database import open_database
    from sealbook.broker.service.partners import Partners

    return Partners(open_database())


def _sessions() -> StoredSessions:
    from sealbook.broker.service.database import open_database
    from sealbook.broker.service.sessions import StoredSessions

    return StoredSessions(open_database())
