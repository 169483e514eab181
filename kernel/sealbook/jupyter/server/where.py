"""Where a kernel's Spark code runs, as far as the user's side knows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sealbook.errors import SealbookError

if TYPE_CHECKING:
    from sealbook.jupyter.provisioner import AttestedProvisioner


def where(provisioner: AttestedProvisioner, entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return where Spark code runs now, with the nodes there and what could be chosen instead.

    Parameters
    ----------
    provisioner
        Of a verified kernel.
    entries
        Of the audit log about it: the kernel, whose code is verified, reports where it starts Spark.
    """
    from sealbook.spark import profiles

    note = ""
    try:
        known = profiles.load_all()
    except SealbookError as error:
        known, note = {}, str(error)
    reports = [entry["facts"].get("cluster", "") for entry in entries if entry.get("action") == "scaled"]
    name = reports[-1] if reports else _beginning(provisioner)
    if not reports and not note:
        note = "Spark has not been used in this kernel yet; it starts when a cell names it."
    profile = known.get(name)
    if name and profile is None:
        # Not quoted: the name is the kernel's.
        name, note = "", note or "The kernel reports a cluster that is not among this user's."
    nodes, missing = _nodes(name) if name else ([], "")
    return {
        "where": "cluster" if name else "unknown" if reports and reports[-1] else "local",
        "name": name,
        "master": profile.master if profile else "",
        "started": bool(reports),
        "nodes": nodes,
        "note": " ".join(filter(None, (note, missing))),
        "choices": [{"name": each.name, "master": each.master} for each in known.values()],
    }


def _beginning(provisioner: AttestedProvisioner) -> str:
    try:
        found = provisioner.find_cluster("")
    except SealbookError:
        return ""
    return "" if found is None else str(found["name"])


def _nodes(name: str) -> tuple[list[dict[str, Any]], str]:
    """Return the nodes that the broker on this machine knows, and what to say where it knows none."""
    from sealbook.broker.client import SILENT_AFTER
    from sealbook.spark.known_nodes import known_nodes

    try:
        known = known_nodes(name)
    except SealbookError as error:
        return [], str(error)
    nodes = [
        {
            "role": node["role"].removeprefix("spark-"),
            "address": ", ".join(node["hosts"]),
            "label": node["label"],
            "measurement": node["measurement"],
            "certificate_until": node["certificate_until"],
        }
        for node in known
        if node["silent_seconds"] <= SILENT_AFTER
    ]
    if nodes:
        return nodes, ""
    return [], "No node of it is known on this machine: `%scale` in a cell asks the cluster's broker."
