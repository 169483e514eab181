"""The agent of a node: has itself measured, attests to the brokers, then becomes the JVM by exec.

``python -I -B -m sealbook.spark.node PLAN`` is a master or worker; PLAN is a :class:`NodePlan`. ``...
node together PLAN...`` starts several as forks of one measured process
(:mod:`sealbook.spark.node_group`). A worker is told that its Java is a directory whose ``bin/java`` has
the executor starter fork (:mod:`sealbook.spark.executor_starter`), or, in an enclave, runs ``... node
PLAN executor OPTIONS MAIN ARGUMENTS``: each executor is enrolled anew, with keys and a certificate of
its own.

What the JVM may know and nobody else goes through one pipe that this process fills before exec: the
secrets are in no file, argument or environment variable at any time.
"""

from __future__ import annotations

import os
import resource
import shlex
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.simulated_loader import ISOLATED, MeasuredAttester, Measuring, forget_host_settings
from sealbook.spark import gramine_jvm
from sealbook.spark.starter import fork_starter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sealbook.attestation import Attester
    from sealbook.spark.executor_request import ExecutorRequest
    from sealbook.spark.node_plan import NodePlan

MASTER_MAIN = "org.apache.spark.deploy.master.Master"
WORKER_MAIN = "org.apache.spark.deploy.worker.Worker"

#: How this program is called, behind the interpreter and its flags.
AGENT = ("-m", "sealbook.spark.node")
#: The first argument that makes the agent start the nodes of several plans.
TOGETHER = "together"
#: The second argument that makes the agent start an executor.
EXECUTOR = "executor"
#: What a worker on a simulated platform runs as its Java.
_CLIENT = Path(__file__).with_name("executor_client.py")

#: Where Gramine has its pseudo-files; elsewhere a node is simulated, as kernels are.
_GRAMINE = gramine_jvm.MARK

#: A master or worker computes nothing: compiled quickly, with the smallest collector, it is there in half
#: the time.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

#: What a worker may tell its executors by environment: names of directories, and the user's for Spark.
_FROM_WORKER = ("SPARK_EXECUTOR_DIRS", "SPARK_USER", "OMP_NUM_THREADS")


def main(arguments: Sequence[str]) -> NoReturn:
    """Become the node's JVM; ends with one sentence on standard error when that fails."""
    forget_host_settings()
    # No core file of this process or of the JVM, which inherits the limit; and files for this user only.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    # Begun before the imports, which take as long.
    _or_say(lambda: _become(arguments, _attester()))
    sys.exit(0)


def _or_say(task: Callable[[], object]) -> None:
    """Do something that ends in a JVM; what goes wrong is said in one sentence, and ends this process."""
    try:
        task()
    except SealbookError as error:
        sys.stderr.write(f"sealbook node: {error}\n")
        status = error.exit_code
    except OSError as error:
        sys.stderr.write(f"sealbook node: {error.filename or 'It'}: {error.strerror}.\n")
        status = 2
    else:
        return
    sys.stderr.flush()
    os._exit(status)


def _attester() -> Attester:
    if _GRAMINE.exists():
        from sealbook.attestation.gramine import open_attester

        return open_attester()
    return MeasuredAttester(Measuring())


def _become(arguments: Sequence[str], attester: Attester) -> None:
    from sealbook.spark.node_plan import NodePlan

    if len(arguments) > 1 and arguments[0] == TOGETHER:
        _start_together([Path(argument) for argument in arguments[1:]], attester)
        return
    if not arguments or arguments[1:2] not in ([], [EXECUTOR]):
        raise InputError("This is the agent of a Spark node: start nodes with `sealbook cluster`.")
    plan = NodePlan.read(Path(arguments[0]))
    if len(arguments) > 1:
        become_executor(plan, arguments[2:], os.environ, attester)
    become_daemon(plan, attester)


def _start_together(places: Sequence[Path], attester: Attester) -> None:
    """Start every node of these plans as a fork of this process, once it was measured and is told to."""
    from sealbook.spark import credentials, executor_command, jvm, settings  # noqa: F401 - once, for all forks
    from sealbook.spark.node_group import NodeGroup
    from sealbook.spark.node_plan import NodePlan

    if not isinstance(attester, MeasuredAttester):
        raise InputError("In an enclave each node is started by itself: give one plan.")
    group = NodeGroup(lambda plan: _or_end(plan, attester))
    group.report(attester.measurement.mrenclave)
    if group.wait():
        group.start([NodePlan.read(place) for place in places])


def _or_end(plan: NodePlan, attester: Attester) -> NoReturn:
    _or_say(lambda: become_daemon(plan, attester))
    os._exit(0)


def become_daemon(plan: NodePlan, attester: Attester) -> NoReturn:
    """Become the JVM of a master or worker."""
    from sealbook.spark import credentials, jvm, settings

    for directory in (plan.work, plan.local, plan.temporary):
        directory.mkdir(mode=0o700, exist_ok=True)
    own = ["--host", plan.host, "--port", str(plan.port), "--webui-port", "0"]
    environment = jvm.environment(local_dirs=plan.local, temporary=plan.temporary, host=plan.host)
    if plan.role == credentials.MASTER:
        main, arguments = MASTER_MAIN, own
        _refuse_busy_port(plan.host, plan.port)
    else:
        main = WORKER_MAIN
        arguments = [
            *own,
            *("--cores", str(plan.cores), "--memory", plan.memory, "--work-dir", str(plan.work)),
            plan.profile.master,
        ]
        environment["JAVA_HOME"] = str(write_java_home(plan, forking=not _GRAMINE.exists()))
        if not _GRAMINE.exists():
            # Before this node has keys: the starter and the executors are forks and would have them too.
            _start_starter(plan, attester)
    command = jvm.command(
        plan.java,
        role=plan.role,
        main=main,
        arguments=arguments,
        heap=plan.heap,
        options=[*_QUICK, *jvm.definitions(settings.daemon_settings()), *_starting(plan)],
        temporary=plan.temporary,
        native=not _GRAMINE.exists(),
    )
    enrolled = credentials.enrol(plan.profile, plan.role, attester, [plan.host])
    if plan.role == credentials.WORKER:
        # Spark itself would try again at random times up to 15 seconds apart.
        wait_for_master(plan)
    _exec(command, environment, enrolled.frame(), quiet=False)


def _start_starter(plan: NodePlan, attester: Attester) -> None:
    """Fork the process whose forks this worker's executors are."""
    from sealbook.spark import executor_starter

    def become(request: ExecutorRequest) -> NoReturn:
        if not request.directory.resolve().is_relative_to(plan.work.resolve()):
            raise RefusedError(f"This executor is not started: {request.directory} is not in {plan.work}.")
        os.chdir(request.directory)
        become_executor(plan, request.arguments, request.environment, attester)

    if isinstance(attester, MeasuredAttester):
        # What measures is a child of this process: a fork could not read what it says.
        attester.wait()
    listener = executor_starter.listen(plan.starter)
    executor_starter.ExecutorStarter(listener, become).fork()


def become_executor(
    plan: NodePlan, given: Sequence[str], handed: Mapping[str, str], attester: Attester
) -> NoReturn:
    """Become the JVM of an executor, if that is what the worker's command line asks for.

    Parameters
    ----------
    given
        The command line.
    handed
        The environment that the worker made for it.
    """
    from sealbook.spark import credentials, executor_command, jvm, settings

    checked = executor_command.check(given, plan.host)
    temporary = Path(tempfile.mkdtemp(prefix="e", dir=plan.temporary))
    environment = jvm.environment(local_dirs=plan.local, temporary=temporary, host=plan.host)
    environment |= from_worker(handed, plan.local)
    command = jvm.command(
        plan.java,
        role=credentials.EXECUTOR,
        main=executor_command.MAIN,
        arguments=checked.arguments,
        heap=checked.heap,
        options=[*checked.options, *jvm.definitions(settings.executor_settings()), *_starting(plan)],
        cores=plan.cores,
        temporary=temporary,
        native=not _GRAMINE.exists(),
    )
    enrolled = credentials.enrol(plan.profile, credentials.EXECUTOR, attester, [plan.host])
    # What an executor and its Python workers print may be data, and the worker would write it to a file of
    # the host. Errors of tasks travel to the driver, over attested TLS.
    _exec(command, environment, enrolled.frame(), quiet=True)


def _starting(plan: NodePlan) -> list[str]:
    """Return what tells a JVM in Gramine who starts its processes, which is forked here; it must not fork."""
    return [f"-Dsealbook.starter={fork_starter(plan.temporary)}"] if _GRAMINE.exists() else []


def from_worker(environment: Mapping[str, str], local: Path) -> dict[str, str]:
    """Return what is taken over of the environment that a worker gives an executor.

    Raises
    ------
    RefusedError
        It names directories for shuffle files that are not this node's.
    """
    kept = {name: environment[name] for name in _FROM_WORKER if name in environment}
    for directory in kept.get("SPARK_EXECUTOR_DIRS", "").split(os.pathsep):
        if directory and not Path(os.path.normpath(directory)).is_relative_to(local):
            raise RefusedError(
                f"This executor is not started: it would write to {directory}, not to this node's {local}."
            )
    return kept


def write_java_home(plan: NodePlan, *, forking: bool) -> Path:
    """Make what a worker takes for its Java, and return it.

    Parameters
    ----------
    forking
        Whether an executor starter does the work. In an enclave there is none: to measure costs nothing
        there, and every further process is a further enclave.
    """
    java = plan.java_home / "bin/java"
    java.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if forking:
        # -S: nothing but the standard library, which makes it ten times as fast.
        command = shlex.join([sys.executable, "-S", *ISOLATED, str(_CLIENT), str(plan.starter)])
    else:
        command = shlex.join([sys.executable, *ISOLATED, *AGENT, str(plan.file), EXECUTOR])
    java.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    java.chmod(0o700)
    return plan.java_home


def wait_for_master(plan: NodePlan) -> None:
    """Return once something listens at the master's address.

    Raises
    ------
    InputError
        Not within the plan's time.
    """
    from sealbook.broker.authorities import check_url

    host, port = check_url(plan.profile.master, "spark")
    deadline = time.monotonic() + plan.wait_seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"The master {plan.profile.master} cannot be reached from {plan.host} within "
                    f"{plan.wait_seconds} seconds ({error.strerror or 'no answer'}): see whether it "
                    "runs, and whether a firewall is in between."
                ) from None
            time.sleep(0.1)
        else:
            return


def _refuse_busy_port(host: str, port: int) -> None:
    """Say in one sentence what Spark would say in a long trace after it tried 16 other ports."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise InputError(
            f"The master cannot listen on {host}:{port} ({error.strerror}): choose another with --port."
        ) from None


def _exec(command: list[str], environment: dict[str, str], frame: bytes, *, quiet: bool) -> NoReturn:
    from sealbook.spark.credentials import into_pipe

    os.dup2(into_pipe(frame), 0)
    sys.stderr.flush()
    if quiet:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    os.execve(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
