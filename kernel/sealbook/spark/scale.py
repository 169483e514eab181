"""Where a notebook's Spark code runs, and how it gets to another place."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sealbook.errors import InputError, RefusedError
from sealbook.spark.profiles import Profile, check_url

#: Asks the user's side for a cluster by its name; for the empty name, for the one that notebooks start with.
#: None: they start locally.
FindCluster = Callable[[str], Profile | None]


@dataclass(frozen=True)
class Scale:
    """Where Spark code runs.

    Attributes
    ----------
    profile
        The cluster; None for this kernel's own machine.
    """

    profile: Profile | None = None

    @property
    def name(self) -> str:
        """As a person says it: ``local`` or the cluster's name."""
        return "local" if self.profile is None else f"cluster {self.profile.name}"

    @property
    def master(self) -> str:
        """Spark's word for it."""
        return "local[*]" if self.profile is None else self.profile.master

    def driver_host(self) -> str:
        """Return the address at which executors reach the driver: this machine's on the way to the master.

        Raises
        ------
        RefusedError
            The master's name is unknown here, or there is no way to it.
        """
        if self.profile is None:
            return "127.0.0.1"
        host, port = check_url(self.profile.master, "spark")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # datagrams: nothing is sent
                return str(probe.getsockname()[0])
        except OSError:
            raise RefusedError(
                f"The master {self.profile.master} of the cluster '{self.profile.name}' cannot be reached "
                "from here: is its name right, and is there a route to it?"
            ) from None


def local_cores() -> int:
    """Return how many cores local Spark uses."""
    return len(os.sched_getaffinity(0))


def cluster_named(find: FindCluster, name: str) -> Profile:
    """Return the cluster of this name.

    Raises
    ------
    InputError
        The user has none of that name.
    """
    if not name:
        raise InputError("Say which cluster: `%scale cluster NAME`.")
    profile = find(name)
    if profile is None:
        raise InputError(f"There is no cluster '{name}': `sealbook cluster up {name}` starts one.")
    return profile


@dataclass(frozen=True)
class NodeEntry:
    """A node of a cluster, as its broker knows it.

    Attributes
    ----------
    role, hosts, session
        What it is and where, and the broker's name for it.
    label
        ``attested``, ``simulated`` or ``not attested``; empty where the broker does not say.
    measurement
        Of what runs there, hex; empty where nothing was measured.
    expires
        End of its certificate.
    """

    role: str
    hosts: tuple[str, ...]
    session: str
    label: str
    measurement: str
    expires: datetime

    @classmethod
    def of(cls, found: Any) -> NodeEntry:
        """Take it from what :mod:`sealbook.broker.client` returns."""
        return cls(
            role=found.role,
            hosts=tuple(getattr(found, "hosts", ())),
            session=found.session,
            label=getattr(found, "label", ""),
            measurement=getattr(found, "measurement", ""),
            expires=found.expires,
        )
