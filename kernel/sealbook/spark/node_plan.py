"""What a node is told when it starts, as a JSON file: addresses and sizes, all of it public.

Written by ``sealbook cluster`` and read by the agent. The host may write whatever it wants into it: the worst
it can do is to have the node ask another broker, which then has a node without any key or data.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sealbook import files
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError
from sealbook.spark import profiles
from sealbook.spark.credentials import MASTER, WORKER
from sealbook.spark.profiles import Profile

_MAX_BYTES = 128 * 1024

#: `sun_path` (108, with its NUL) less the name that Spark gives a socket: a dot, a UUID and ``.sock``.
LONGEST_TEMPORARY = 107 - len("/") - 1 - 36 - len(".sock")


@dataclass(frozen=True)
class NodePlan:
    """One master or worker.

    Attributes
    ----------
    profile
        The cluster it belongs to.
    role
        ``spark-master`` or ``spark-worker``.
    host
        The address it listens on, and is reached at.
    port
        Of its RPC; 0 for any (a worker's).
    directory
        Its own, for logs, work files (encrypted) and sockets.
    java
        The program.
    """

    profile: Profile
    role: str
    host: str
    port: int
    directory: Path
    java: Path
    cores: int = 1
    memory: str = "1g"
    heap: str = "1g"
    wait_seconds: int = 60

    #: Name of the file that the plan itself is written into.
    FILE: ClassVar[str] = "node.json"

    def __post_init__(self) -> None:
        if self.role not in (MASTER, WORKER):
            raise InputError(f"A node that is started is a {MASTER} or a {WORKER}, not {self.role!r}.")
        if len(str(self.temporary)) + _UNIQUE > LONGEST_TEMPORARY:
            raise InputError(
                f"The directory {self.directory} has too long a name for the sockets in it: use one with "
                f"at most {LONGEST_TEMPORARY - _UNIQUE - len('/t')} characters."
            )

    @property
    def file(self) -> Path:
        """Where the plan itself lies."""
        return self.directory / self.FILE

    @property
    def work(self) -> Path:
        """Where a worker has a directory for each executor."""
        return self.directory / "work"

    @property
    def local(self) -> Path:
        """Where shuffle and spill files lie, encrypted."""
        return self.directory / "local"

    @property
    def temporary(self) -> Path:
        """Where sockets of Python workers and unpacked native libraries lie; short, see the constant."""
        return self.directory / "t"

    @property
    def log(self) -> Path:
        """What the node says, and what goes wrong."""
        return self.directory / "log"

    @property
    def starter(self) -> Path:
        """The Unix socket at which a worker's executors are started."""
        return self.directory / "s"

    @property
    def java_home(self) -> Path:
        """What a worker takes for its Java: its ``bin/java`` is the agent in the role of an executor."""
        return self.directory / "java"

    def write(self) -> None:
        """Write the plan into the node's directory."""
        content = dataclasses.asdict(self) | {
            "v": 1,
            "cluster": self.profile.name,
            "profile": profiles.to_table(self.profile),
            "directory": str(self.directory),
            "java": str(self.java),
        }
        files.write_bytes(self.file, canonical_json(content), mode=0o600)

    @classmethod
    def read(cls, path: Path) -> NodePlan:
        """Read a plan.

        Raises
        ------
        InputError
            It is not one.
        """
        data = files.read_bounded(path, "The node's plan", _MAX_BYTES, regular=True)
        content = parse_json(data, what=f"The node's plan {path}", max_bytes=_MAX_BYTES)
        wanted: dict[str, type] = {
            "v": int,
            "cluster": str,
            "profile": dict,
            "role": str,
            "host": str,
            "port": int,
            "directory": str,
            "java": str,
            "cores": int,
            "memory": str,
            "heap": str,
            "wait_seconds": int,
        }
        if (
            not isinstance(content, dict)
            or set(content) != set(wanted)
            or not all(type(content[name]) is kind for name, kind in wanted.items())
            or content.pop("v") != 1
        ):
            raise InputError(f"{path} is not the plan of a node: start nodes with `sealbook cluster`.")
        name = content.pop("cluster")
        fields: dict[str, Any] = {
            **content,
            "profile": profiles.from_table(name, content["profile"], str(path)),
            "directory": Path(content["directory"]),
            "java": Path(content["java"]),
        }
        return cls(**fields)


#: What the agent appends for each executor: ``/`` and the eight letters of mkdtemp behind one of its own.
_UNIQUE = len("/e") + 8
