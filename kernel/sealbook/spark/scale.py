"""Where a notebook's Spark code runs, and how it gets to another place."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sealbook.broker.authorities import check_url
from sealbook.errors import InputError, RefusedError
from sealbook.spark.profiles import Profile

#: Asks the user's side for a cluster by its name; for the empty name, for the one that notebooks start with.
#: None: they start locally.
FindCluster = Callable[[str], Profile | None]


#: Seconds in which a master must take a connection.
_MASTER_SECONDS: Final = 5.0


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

    def require_master(self) -> None:
        """Return when the master takes connections: Spark itself would look for it for minutes.

        Raises
        ------
        RefusedError
            It does not; what it is, its own and the driver's certificate decide later.
        """
        if self.profile is None:
            return
        host, port = check_url(self.profile.master, "spark")
        try:
            socket.create_connection((host, port), _MASTER_SECONDS).close()
        except OSError as error:
            raise RefusedError(
                f"The master {self.profile.master} of the cluster '{self.profile.name}' does not answer "
                f"({error.strerror or error}): `sealbook cluster status {self.profile.name}` shows what runs."
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
