"""A trusted cluster of real processes on this machine: started in one go, and ended without a trace.

Nodes of a cluster on other machines are started there, one at a time, by :func:`join`.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sealbook import jdk, spark_files
from sealbook.broker.client import BrokerClient
from sealbook.broker.names import check_name
from sealbook.encoding import parse_json
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.image import java as java_of_images
from sealbook.simulated_loader import ISOLATED
from sealbook.spark import cluster_state, jvm, node, profiles
from sealbook.spark.cluster_state import DIRECTORY_PREFIX, ClusterState, Member
from sealbook.spark.credentials import MASTER, WORKER
from sealbook.spark.gramine_nodes import GramineNodes
from sealbook.spark.node_group import GO
from sealbook.spark.node_plan import NodePlan
from sealbook.spark.processes import Process, end
from sealbook.spark.profiles import Profile

#: Seconds that `up` and `join` take at most, unless told otherwise.
PATIENCE = 90
MAX_WORKERS = 16
#: What a worker's log says once it belongs to the cluster; see conf/log4j2.properties.
REGISTERED = "Successfully registered with master"
#: Heap of the JVMs of masters and workers, which hold no data.
DAEMON_HEAP = "512m"
_LOG = "log"
#: Directories beside those of the nodes.
_BROKER, _AGENT = "broker", "agent"
_MAX_LINE_BYTES = 1024
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
    #: Told the nodes' measurement before any of them attests; raises where no policy admits it.
    admit: Callable[[bytes], None] = lambda measurement: None


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
        Says how to start one, once all else was found fit; or a profile that names one which runs already.
    host, port
        Of the master.
    worker_hosts
        Of the workers, in turn; by default all have the master's.
    gramine
        What all nodes run in; None for simulated enclaves.
    patience
        Seconds after which it is given up, and everything ended again.
    say
        Told what happens.

    Raises
    ------
    InputError
        Java is missing, a port is taken, the cluster runs already, the broker did not admit a node ...
    """
    java = check_fit(name, host, port, gramine)
    hosts = list(worker_hosts) or [host]
    start = _Start(name, java, size, time.monotonic() + patience, patience, say, gramine)
    try:
        places = [start.place("m")] + [start.place(f"w{number + 1}") for number in range(size.workers)]
        # Measures while the broker starts.
        start.agent(places)
        command = None
        if not isinstance(broker, Profile):
            command = broker()
            broker = Profile(name, f"spark://{_bracketed(host)}:{port}", command.url, command.ca)
        profile = Profile(
            name=name,
            master=f"spark://{_bracketed(host)}:{port}",
            broker=broker.broker,
            ca=broker.ca,
            cores=size.cores,
            memory=size.memory,
        )
        if gramine is not None:
            gramine.check_profile(profile)
        start.plan(profile, MASTER, places[0], host, port)
        for number, place in enumerate(places[1:]):
            start.plan(profile, WORKER, place, hosts[number % len(hosts)], 0)
        if command is not None:
            start.broker(command)
        start.nodes(command.admit if command is not None else None)
        start.wait()
    except BaseException:
        _end(start.state)
        raise
    profiles.save(profile)
    return profile


def check_fit(name: str, host: str, port: int, gramine: GramineNodes | None = None) -> Path:
    """Return the Java for a cluster, which can be started here.

    Raises
    ------
    InputError
        It cannot: Java is missing, the port is taken, it runs already ...
    """
    check_name(name, "a cluster")
    if not 1 <= port <= 65535:
        raise InputError(f"{port} is not a port: choose one from 1 to 65535.")
    java = java_for(gramine)
    _refuse_running(name)
    refuse_busy(host, port, "--port")
    return java


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
    java = java_for(gramine)
    if gramine is not None:
        gramine.check_profile(profile)
    _refuse_running(profile.name)
    start = _Start(profile.name, java, size, time.monotonic() + patience, patience, say, gramine)
    try:
        place = start.place("w1")
        start.agent([place])
        start.plan(profile, WORKER, place, host, port)
        start.nodes(None)
        start.wait()
    except BaseException:
        _end(start.state)
        raise


def down(name: str) -> bool:
    """End a cluster on this machine; returns whether there was anything of it.

    Every process, its directory and its profile go; also when parts of it were killed before.
    """
    check_name(name, "a cluster")
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
        elsewhere = error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror)
        other = "--host" if elsewhere else option
        raise InputError(
            f"Nothing can listen at {host}:{port} ({cause}): choose another with {other}."
        ) from None


class _Start:
    """A start under way; remembers each process before the next is started."""

    def __init__(
        self,
        name: str,
        java: Path,
        size: Size,
        deadline: float,
        patience: int,
        say: Say,
        gramine: GramineNodes | None,
    ) -> None:
        self._gramine = gramine
        self._java = java
        self._size = size
        self._deadline = deadline
        self._patience = patience
        self._say = say
        self._plans: list[NodePlan] = []
        self._agent: subprocess.Popen[bytes] | None = None
        self._broker: subprocess.Popen[bytes] | None = None
        directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
        self.state = ClusterState(name, directory)
        self.state.save()

    def place(self, name: str) -> Path:
        """Make a directory for one process."""
        directory = self.state.directory / name
        directory.mkdir(mode=0o700)
        return directory

    def broker(self, command: BrokerCommand) -> None:
        """Start the broker and wait until it answers."""
        directory = self.place(_BROKER)
        self._say("Starting the key broker ...")
        with (directory / _LOG).open("ab") as log:
            child = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**node_environment(), **command.environment},
                cwd=directory,
                start_new_session=True,
                pass_fds=command.descriptors,
            )
        self._broker = child
        self._remember("broker", command.url.partition("//")[2], child.pid)
        client = BrokerClient(command.url, command.ca, timeout=5)
        while True:
            try:
                client.name()
            except SealbookError as error:
                self._check()
                if time.monotonic() > self._deadline:
                    raise self._late("the key broker does not answer", str(error)) from None
                time.sleep(0.05)
            else:
                return

    def agent(self, places: Sequence[Path]) -> None:
        """Start the process that is going to be forked into the nodes; it measures itself meanwhile.

        Nodes in Gramine were measured when their image was built, and each has an enclave of its own.
        """
        if self._gramine is not None:
            return
        plans = [str(place / NodePlan.FILE) for place in places]
        with (self.place(_AGENT) / _LOG).open("ab") as log:
            self._agent = subprocess.Popen(
                [sys.executable, *ISOLATED, *node.AGENT, node.TOGETHER, *plans],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=node_environment(),
                cwd=self.state.directory,
                start_new_session=True,
            )
        # What measures it is in its session, and in no other way known as part of this.
        self._remember(_AGENT, "", self._agent.pid)

    def plan(self, profile: Profile, role: str, directory: Path, host: str, port: int) -> None:
        """Write down what a node is to be."""
        plan = NodePlan(
            profile=profile,
            role=role,
            host=host,
            port=port,
            directory=directory,
            java=self._java,
            cores=self._size.cores,
            memory=self._size.memory,
            heap=DAEMON_HEAP,
            wait_seconds=max(1, int(self._deadline - time.monotonic())),
        )
        plan.write()
        self._plans.append(plan)

    def nodes(self, admit: Callable[[bytes], None] | None) -> None:
        """Let the agent fork the nodes, once it is known as what it was measured."""
        if self._gramine is not None:
            for plan in self._plans:
                self._say(f"Starting {_who(plan.directory.name).lower()} on {plan.host} ...")
                self._in_gramine(plan, self._gramine)
            return
        agent = self._agent
        if agent is None or agent.stdin is None or agent.stdout is None:
            raise AssertionError("the agent is started first")
        with agent.stdin as go, agent.stdout as said:
            measurement = bytes.fromhex(str(self._line(said, "measurement", str)))
            if admit is not None:
                admit(measurement)
            self._say(f"Starting {', '.join(_who(plan.directory.name).lower() for plan in self._plans)} ...")
            go.write(GO)
            go.flush()
            for plan in self._plans:
                address = f"{plan.host}:{plan.port}" if plan.port else plan.host
                self._remember(plan.role, address, int(str(self._line(said, "pid", int))))
        agent.wait()
        self.state = self.state.without(agent.pid)
        self.state.save()

    def _in_gramine(self, plan: NodePlan, gramine: GramineNodes) -> None:
        with (plan.directory / _LOG).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *ISOLATED, *gramine.command(plan.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=node_environment(),
                cwd=plan.directory,
                start_new_session=True,
            )
        self._remember(plan.role, f"{plan.host}:{plan.port}" if plan.port else plan.host, child.pid)

    def wait(self) -> None:
        """Wait until the master has registered every worker."""
        workers = [plan for plan in self._plans if plan.role == WORKER]
        waiting = workers
        while waiting:
            self._check()
            still = [plan for plan in waiting if REGISTERED not in _log(plan.directory)]
            if len(still) < len(waiting):
                self._say(f"{len(workers) - len(still)} of {len(workers)} workers are registered.")
            waiting = still
            if waiting and time.monotonic() > self._deadline:
                names = ", ".join(_who(plan.directory.name) for plan in waiting)
                raise self._late(f"{names} did not register", _last_line(waiting[0].directory))
            time.sleep(0.05)

    def _line(self, said: IO[bytes], name: str, kind: type) -> object:
        """Return what the agent says next under `name`."""
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([said], [], [], max(0.0, self._deadline - time.monotonic()))
            if not ready:
                raise self._late("the nodes' agent did not start", _last_line(self.state.directory / _AGENT))
            # Not through the buffer, which select does not know of.
            piece = os.read(said.fileno(), 1)
            text += piece
            if not piece or len(text) > _MAX_LINE_BYTES:
                raise self._ended("The nodes' agent", self.state.directory / _AGENT)
        found = parse_json(text, what="What the nodes' agent says", max_bytes=_MAX_LINE_BYTES)
        if not isinstance(found, dict) or type(found.get(name)) is not kind:
            raise AssertionError("the agent is of another version")
        return found[name]

    def _remember(self, role: str, address: str, pid: int) -> None:
        process = Process.of(pid) or Process(pid, 0)
        self.state = self.state.with_member(Member(role, address, pid, process.started))
        self.state.save()

    def _check(self) -> None:
        """Raise what a process said when it has ended."""
        if self._broker is not None and self._broker.poll() is not None:
            raise self._ended("The key broker", self.state.directory / _BROKER)
        nodes = [member for member in self.state.members if member.role in (MASTER, WORKER)]
        for plan, member in zip(self._plans, nodes, strict=False):
            if not member.process.alive:
                raise self._ended(_who(plan.directory.name), plan.directory)

    def _ended(self, who: str, directory: Path) -> InputError:
        said = _last_line(directory)
        return InputError(said if said.startswith(who) else f"{who} has ended: {said or 'it said nothing'}")

    def _late(self, what: str, detail: str) -> InputError:
        said = f"; last it said: {detail}" if detail else ""
        return InputError(f"Within {self._patience} seconds {what}, so everything was ended again{said}")


def java_for(gramine: GramineNodes | None) -> Path:
    """Return the Java of the nodes; looks at all that they need of this machine.

    Raises
    ------
    InputError, MissingDependencyError
        Something of it is missing.
    """
    if gramine is not None:
        return Path(java_of_images.EXECUTABLE)
    java = jdk.find_java()
    spark_files.jar()
    spark_files.spark_home()
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


def node_environment() -> dict[str, str]:
    """Return what a node's agent gets of this process's environment."""
    return {name: os.environ[name] for name in _FOR_NODES if name in os.environ}


def _who(directory: str) -> str:
    return "The master" if directory == "m" else f"Worker {directory[1:]}"


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
