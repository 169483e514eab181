"""Clusters: a name, a secret that makes members, and the policy that admits nodes.

Each is a reserved key ``cluster.NAME``, guarded by its policy; a version is a secret.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealbook.broker.certificates import Authority
from sealbook.broker.keyring import Keyring, StoredKey
from sealbook.broker.names import check_name
from sealbook.broker.reserved import BROKER_CA, CLUSTER_PREFIX
from sealbook.errors import InputError, RefusedError


@dataclass(frozen=True)
class Cluster:
    """A cluster as it may be shown."""

    name: str
    policy: str
    version: int
    created: str


class Clusters:
    """The clusters of one keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def list(self) -> tuple[Cluster, ...]:
        """Return all, by name."""
        return tuple(
            Cluster(
                record.name.removeprefix(CLUSTER_PREFIX),
                record.guard,
                record.current,
                record.versions[-1].created,
            )
            for record in self._keyring.list()
            if record.name.startswith(CLUSTER_PREFIX)
        )

    def add(self, name: str, *, policy: str) -> None:
        """Make a cluster; for one that exists, have another policy admit its nodes from now on."""
        key = _key(name)
        if policy == "none":
            raise InputError("A cluster's nodes must be admitted by a policy: name one.")
        stored = self._keyring.make_reserved(
            key, guard=policy, description=f"makes members of cluster {name}"
        )
        if stored.record.guard != policy:
            self._keyring.set_guard(key, policy)

    def authority(self) -> str:
        """Return what the nodes of all clusters, and other owners, trust this broker by: its CA, PEM."""
        stored = self._keyring.make_reserved(
            BROKER_CA, guard=BROKER_CA, description="issues the broker's own certificate"
        )
        return Authority(stored).pem

    def rotate(self, name: str) -> int:
        """Give a cluster a new secret, which ends the membership of its nodes; returns its version."""
        self.find(name)
        return self._keyring.rotate(_key(name)).current

    def remove(self, name: str) -> None:
        """Delete a cluster: its nodes are members of nothing from now on."""
        self.find(name)
        self._keyring.delete(_key(name))

    def find(self, name: str) -> StoredKey:
        """Return a cluster's policy (guard) and secrets.

        Raises
        ------
        RefusedError
            There is none of that name.
        """
        stored = self._keyring.reserved(_key(name))
        if stored is None:
            raise RefusedError(
                f"This broker has no cluster '{name}'; `sealbook broker cluster add {name} --policy POLICY` "
                "makes it."
            )
        return stored


def _key(name: str) -> str:
    return CLUSTER_PREFIX + check_name(name, "a cluster")
