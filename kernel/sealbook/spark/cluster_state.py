"""What is remembered of a cluster on this machine, so that it can be shown and ended: a JSON file.

Written before and after each process is started, so that also a cluster whose start was killed can be ended.
Nothing in it is secret.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sealbook import files, paths
from sealbook.broker.names import check_name
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError
from sealbook.spark.processes import Process

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """One process that was started.

    Attributes
    ----------
    role
        ``broker``, ``spark-master``, ``spark-worker``, or while they start ``agent``.
    address
        ``host:port``, or the host.
    """

    role: str
    address: str
    pid: int
    started: int

    @property
    def process(self) -> Process:
        """The process."""
        return Process(self.pid, self.started)


@dataclass(frozen=True)
class ClusterState:
    """A cluster on this machine.

    Attributes
    ----------
    directory
        Of its logs and work files; removed with it.
    """

    name: str
    directory: Path
    members: tuple[Member, ...] = field(default=())

    def with_member(self, member: Member) -> ClusterState:
        """Return it with one more process."""
        return replace(self, members=(*self.members, member))

    def without(self, pid: int) -> ClusterState:
        """Return it without the process of this number."""
        return replace(self, members=tuple(member for member in self.members if member.pid != pid))

    def save(self) -> None:
        """Write it."""
        path = _path(self.name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        content = {
            "v": 1,
            "name": self.name,
            "directory": str(self.directory),
            "members": [asdict(member) for member in self.members],
        }
        files.write_bytes(path, canonical_json(content), mode=0o600)

    def forget(self) -> None:
        """Remove the file."""
        _path(self.name).unlink(missing_ok=True)


def load(name: str) -> ClusterState | None:
    """Return what is remembered of the cluster `name`, or None.

    Raises
    ------
    InputError
        The file was changed by hand into something else.
    """
    path = _path(name)
    if not path.exists():
        return None
    data = files.read_bounded(path, "The cluster's state", _MAX_BYTES, regular=True)
    content = parse_json(data, what=f"The cluster's state {path}", max_bytes=_MAX_BYTES)
    try:
        members = tuple(Member(**member) for member in content["members"])
        state = ClusterState(content["name"], Path(content["directory"]), members)
        if content["v"] != 1 or state.name != name or not _is_ours(state.directory) or not _typed(members):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} is not what `sealbook cluster up` wrote: end the cluster's processes and remove it."
        ) from None
    return state


def names() -> list[str]:
    """Return the clusters that are remembered."""
    return sorted(path.stem for path in _directory().glob("*.json"))


def _is_ours(directory: Path) -> bool:
    # It is going to be removed with all that is in it.
    return directory.is_absolute() and directory.name.startswith(DIRECTORY_PREFIX)


def _typed(members: tuple[Member, ...]) -> bool:
    kinds: dict[str, Any] = {"role": str, "address": str, "pid": int, "started": int}
    return all(type(getattr(m, name)) is kind and m.pid > 1 for m in members for name, kind in kinds.items())


def _directory() -> Path:
    return paths.data_dir() / "clusters"


def _path(name: str) -> Path:
    return _directory() / f"{check_name(name, 'a cluster')}.json"


#: Names of directories that belong to clusters begin so.
DIRECTORY_PREFIX = "sealbook-cluster-"
