"""One node in the foreground, for what starts and watches processes itself: a container, systemd.

The same agent as everywhere, with a directory of its own. This process only waits beside it: it may be the
first of a container, which nothing ends that it does not handle and which inherits every orphan.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sealbook import lifeline
from sealbook.errors import RefusedError
from sealbook.image.owned_directory import owned_directory
from sealbook.simulated_loader import ISOLATED
from sealbook.spark import cluster, node
from sealbook.spark.cluster_state import DIRECTORY_PREFIX
from sealbook.spark.gramine_nodes import GramineNodes
from sealbook.spark.node_plan import NodePlan
from sealbook.spark.processes import Process, end
from sealbook.spark.profiles import Profile

_ASKED = frozenset({signal.SIGTERM, signal.SIGINT})
_WAITED = _ASKED | {signal.SIGCHLD}


def run(
    profile: Profile,
    role: str,
    *,
    host: str,
    port: int,
    gramine: GramineNodes | None = None,
    patience: int = cluster.PATIENCE,
) -> int:
    """Be a node until it ends or SIGTERM comes; nothing of it is left then.

    Parameters
    ----------
    profile
        Of the cluster; with cores and memory of the executors.
    role
        ``spark-master`` or ``spark-worker``.
    host, port
        Where the node listens and is reached; 0 for any port.
    patience
        Seconds that a worker waits for its master.

    Returns
    -------
    int
        The status of the node's JVM (128 and the signal's number where one ended it), or 0 where the node
        was asked to end.

    Raises
    ------
    InputError, MissingDependencyError, RefusedError
        It cannot be started here, or not everything of it could be ended.
    """
    java = cluster.java_for(gramine)
    if gramine is not None:
        gramine.check_profile(profile)
    # Also takes away what a node before it left that was killed: a restarted container has the same disk.
    with owned_directory(Path(tempfile.gettempdir()), DIRECTORY_PREFIX) as place:
        plan = NodePlan(
            profile=profile,
            role=role,
            host=host,
            port=port,
            directory=place,
            java=java,
            cores=profile.cores,
            memory=profile.memory,
            heap=cluster.DAEMON_HEAP,
            wait_seconds=patience,
        )
        plan.write()
        agent = gramine.command(plan.file) if gramine is not None else [*node.AGENT, str(plan.file)]
        return _watch([sys.executable, *ISOLATED, *agent], place)


def _watch(command: Sequence[str], place: Path) -> int:
    """Run the agent, whose process becomes the JVM, and end all that belongs to it in the end."""
    # Before there is a child: no signal is lost, and none comes at a moment when nobody would end the node.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    parent = os.getpid()

    def begin() -> None:
        lifeline.end_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=cluster.node_environment(),
            cwd=place,
            start_new_session=True,
            preexec_fn=begin,
        )
        leader = Process.of(child.pid) or Process(child.pid, 0)
        try:
            while (status := _status(child)) is None:
                if signal.sigwait(_WAITED) in _ASKED:
                    return 0
            return status
        finally:
            if not end([leader], place):
                raise RefusedError(f"Some processes of this node cannot be ended: look for {place}.")
            _status(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _status(child: subprocess.Popen[bytes]) -> int | None:
    """Take note of every child that ended; return the status of `child`, or None while it runs."""
    while child.returncode is None:
        # Any child: the first process of a container is given the orphans of the others.
        pid, waited = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(waited)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
