"""A trusted cluster of real processes on this machine: started in one go, and ended without a trace.

Nodes of a cluster on other machines are started there, one at a time, by :func:`join`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sealbook.broker.client import BrokerClient
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.image import java as java_of_images
from sealbook.simulated_loader import ISOLATED
from sealbook.spark import cluster_state, jdk, jvm, node, profiles
from sealbook.spark.cluster_state import DIRECTORY_PREFIX, ClusterState, Member
from sealbook.spark.credentials import MASTER, WORKER
from sealbook.spark.gramine_nodes import GramineNodes
from sealbook.spark.node_plan import NodePlan
from sealbook.spark.processes import Process, end
from sealbook.spark.profiles import Profile

#: Seconds that `up` and `join` take at most, unless told otherwise.
PATIENCE = 90
MAX_WORKERS = 16
#: What a worker's log says once it belongs to the cluster; see conf/log4j2.properties.
REGISTERED = "Successfully registered with master"
#: Heap of the JVMs of masters and workers, which hold no data.
_DAEMON_HEAP = "512m"
_LOG = "log"
_MAX_LOG_BYTES = 64 * 1024
#: Of this process's environment, a node gets these.
_FOR_NODES = ("HOME", "PATH", "SEALBOOK_HOME", "TZ", "XDG_DATA_HOME", "SEALBOOK_PCCS")

Say = Callable[[str], None]


@dataclass(frozen=True)
class BrokerCommand:
    """How the broker of a cluster is started."""

    argv: tuple[str, ...]
    url: str
    ca: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Size:
    """How large a cluster is to be.

    Attributes
    ----------
    cores, memory
        Of each worker, which has one executor for each job.
    """

    workers: int = 2
    cores: int = 1
    memory: str = "1g"

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise InputError(f"A cluster on one machine has 1 to {MAX_WORKERS} workers, not {self.workers}.")
        if not 1 <= self.cores <= 1024:
            raise InputError(f"A worker has 1 to 1024 cores, not {self.cores}.")
        jvm.check_heap(self.memory)


def up(
    name: str,
    size: Size,
    broker: Callable[[], BrokerCommand] | Profile,
    *,
    host: str = "127.0.0.1",
    port: int = 7077,
    worker_hosts: Sequence[str] = (),
    gramine: GramineNodes | None = None,
    patience: int = PATIENCE,
    say: Say = lambda text: None,
) -> Profile:
    """Start a cluster and return its profile, which is saved.

    Parameters
    ----------
    broker
        Says how to start one, once all else was found fit; or a profile that names one which runs already,
        and its owners.
    host, port
        Of the master.
    worker_hosts
        Of the workers, in turn; by default all have the master's.
    gramine
        What master and workers are started from; None for simulated enclaves.
    patience
        Seconds after which it is given up, and everything ended again.
    say
        Told what happens.

    Raises
    ------
    InputError
        Java is missing, a port is taken, the cluster runs already, the broker did not admit a node ...
    """
    profiles.check_name(name)
    if not 1 <= port <= 65535:
        raise InputError(f"{port} is not a port: choose one from 1 to 65535.")
    java = _java(gramine)
    _refuse_running(name)
    refuse_busy(host, port, "--port")
    command = None
    if not isinstance(broker, Profile):
        command = broker()
        broker = Profile(name, f"spark://{_bracketed(host)}:{port}", command.url, command.ca)
    profile = Profile(
        name=name,
        master=f"spark://{_bracketed(host)}:{port}",
        broker=broker.broker,
        ca=broker.ca,
        owners=broker.owners,
        cores=size.cores,
        memory=size.memory,
    )
    if gramine is not None:
        gramine.check_profile(profile)
    hosts = list(worker_hosts) or [host]
    deadline = time.monotonic() + patience
    start = _Start(name, java, deadline, patience, say, gramine)
    try:
        if command is not None:
            start.broker(command)
        start.node(profile, MASTER, host, port)
        for number in range(size.workers):
            start.node(profile, WORKER, hosts[number % len(hosts)], 0, size=size)
        start.wait()
    except BaseException:
        _end(start.state)
        raise
    profiles.save(profile)
    return profile


def join(
    profile: Profile,
    *,
    host: str,
    size: Size,
    port: int = 0,
    gramine: GramineNodes | None = None,
    patience: int = PATIENCE,
    say: Say = lambda text: None,
) -> None:
    """Start one worker on this machine for a cluster whose broker and master are elsewhere.

    Raises
    ------
    InputError
        As :func:`up`; or the master cannot be reached.
    """
    java = _java(gramine)
    if gramine is not None:
        gramine.check_profile(profile)
    _refuse_running(profile.name)
    start = _Start(profile.name, java, time.monotonic() + patience, patience, say, gramine)
    try:
        start.node(profile, WORKER, host, port, size=size)
        start.wait()
    except BaseException:
        _end(start.state)
        raise


def down(name: str) -> bool:
    """End a cluster on this machine; returns whether there was anything of it.

    Every process, its directory and its profile go; also when parts of it were killed before.
    """
    profiles.check_name(name)
    state = cluster_state.load(name)
    if state is None:
        return False
    _end(state)
    started_here = any(member.role == MASTER for member in state.members)
    if started_here or not state.members:
        profiles.remove(name)
    return True


def refuse_busy(host: str, port: int, option: str) -> None:
    """Refuse an address where something listens already, or that is not this machine's.

    Raises
    ------
    InputError
        It cannot be listened at.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1)
    except OSError as error:
        cause = error.strerror or str(error)
        raise InputError(
            f"Nothing can listen at {host}:{port} ({cause}): choose another with {option}."
        ) from None


class _Start:
    """A start under way; remembers each process before the next is started."""

    def __init__(
        self,
        name: str,
        java: Path,
        deadline: float,
        patience: int,
        say: Say,
        gramine: GramineNodes | None = None,
    ) -> None:
        self._java = java
        self._gramine = gramine
        self._deadline = deadline
        self._patience = patience
        self._say = say
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._workers: list[Path] = []
        directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
        self.state = ClusterState(name, directory)
        self.state.save()

    def broker(self, command: BrokerCommand) -> None:
        """Start the broker and wait until it answers."""
        directory = self._directory("broker")
        self._say("Starting the key broker ...")
        child = self._spawn(
            directory,
            list(command.argv),
            {**_environment(), **command.environment},
            "broker",
            command.url.partition("//")[2],
            command.descriptors,
        )
        client = BrokerClient(command.url, command.ca, timeout=5)
        while True:
            try:
                client.name()
            except SealbookError as error:
                self._check(directory, child, "The key broker")
                if time.monotonic() > self._deadline:
                    raise self._late("the key broker does not answer", str(error)) from None
                time.sleep(0.05)
            else:
                return

    def node(self, profile: Profile, role: str, host: str, port: int, *, size: Size | None = None) -> None:
        """Start the agent of a node, which becomes its JVM."""
        number = len(self._workers) + 1
        directory = self._directory("m" if role == MASTER else f"w{number}")
        size = size or Size()
        plan = NodePlan(
            profile=profile,
            role=role,
            host=host,
            port=port,
            directory=directory,
            java=self._java,
            cores=size.cores,
            memory=size.memory,
            heap=_DAEMON_HEAP,
            wait_seconds=max(1, int(self._deadline - time.monotonic())),
        )
        plan.write()
        self._say(f"Starting {'the master' if role == MASTER else f'worker {number}'} on {host} ...")
        agent = [*node.AGENT, str(plan.file)] if self._gramine is None else self._gramine.command(plan.file)
        argv = [sys.executable, *ISOLATED, *agent]
        self._spawn(directory, argv, _environment(), role, f"{host}:{port}" if port else host)
        if role == WORKER:
            self._workers.append(directory)

    def wait(self) -> None:
        """Wait until the master has registered every worker."""
        waiting = list(self._workers)
        while waiting:
            for directory, child in self._children.items():
                self._check(directory, child, _who(directory.name))
            still = [directory for directory in waiting if REGISTERED not in _log(directory)]
            if len(still) < len(waiting):
                self._say(
                    f"{len(self._workers) - len(still)} of {len(self._workers)} workers are registered."
                )
            waiting = still
            if waiting and time.monotonic() > self._deadline:
                names = ", ".join(_who(directory.name) for directory in waiting)
                raise self._late(f"{names} did not register", _last_line(waiting[0]))
            time.sleep(0.05)

    def _directory(self, name: str) -> Path:
        directory = self.state.directory / name
        directory.mkdir(mode=0o700)
        return directory

    def _spawn(
        self,
        directory: Path,
        argv: list[str],
        environment: dict[str, str],
        role: str,
        address: str,
        descriptors: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        with (directory / _LOG).open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=directory,
                start_new_session=True,
                pass_fds=descriptors,
            )
        self._children[directory] = child
        process = Process.of(child.pid)
        if process is not None:
            self.state = self.state.with_member(Member(role, address, child.pid, process.started))
            self.state.save()
        return child

    def _check(self, directory: Path, child: subprocess.Popen[bytes], who: str) -> None:
        """Raise what a process said when it has ended."""
        status = child.poll()
        if status is None:
            return
        said = _last_line(directory)
        raise InputError(
            said
            if said.startswith(who)
            else f"{who} has ended (status {status}): {said or 'it said nothing'}"
        )

    def _late(self, what: str, detail: str) -> InputError:
        said = f"; last it said: {detail}" if detail else ""
        return InputError(f"Within {self._patience} seconds {what}, so everything was ended again{said}")


def _java(gramine: GramineNodes | None) -> Path:
    """Return the Java of the nodes; looks at all that they need of this machine."""
    if gramine is not None:
        return Path(java_of_images.EXECUTABLE)
    java = jdk.find_java()
    jvm.jar()
    jvm.spark_home()
    return java


def _refuse_running(name: str) -> None:
    state = cluster_state.load(name)
    if state is None:
        return
    if any(member.process.alive for member in state.members):
        raise InputError(f"The cluster '{name}' runs already: `sealbook cluster down {name}` ends it.")
    _end(state)


def _end(state: ClusterState) -> None:
    leaders = [member.process for member in state.members]
    if not end(leaders, state.directory):
        raise RefusedError(
            f"Some processes of the cluster '{state.name}' cannot be ended: run `sealbook cluster down "
            f"{state.name}` as the user they belong to."
        )
    for child in leaders:
        _reap(child.pid)
    shutil.rmtree(state.directory, ignore_errors=True)
    state.forget()


def _reap(pid: int) -> None:
    """Take note of the end of a child; those of another process are not ours."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _FOR_NODES if name in os.environ}


def _who(directory: str) -> str:
    return {"broker": "The key broker", "m": "The master"}.get(directory, f"Worker {directory[1:]}")


def _log(directory: Path) -> str:
    try:
        with (directory / _LOG).open("rb") as file:
            return file.read(_MAX_LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _last_line(directory: Path) -> str:
    """Return the sentence that a process ended with."""
    lines = [line.strip() for line in _log(directory).splitlines() if line.strip()]
    found = [line for line in lines if line.startswith(("sealbook", "The ", "This "))]
    last = (found or lines or [""])[-1]
    for prefix in ("sealbook node: ", "sealbook: "):
        last = last.removeprefix(prefix)
    return last[:500]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
