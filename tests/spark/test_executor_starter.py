"""Executors are forks of one process: who may ask for one, what is handed over, and who ends when."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sealbook.errors import InputError, RefusedError
from sealbook.spark import executor_client, executor_request, executor_starter
from sealbook.spark.executor_request import ExecutorRequest
from sealbook.spark.processes import Process

CLIENT = executor_client.__file__
WORKER = Path(__file__).with_name("worker_of_a_test.py")


class Worker:
    """A worker with a starter, and what it calls its Java."""

    def __init__(self, directory: Path, *patience: str) -> None:
        self.directory = directory
        self.place = directory / "s"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", WORKER, self.place, *patience], stdout=subprocess.PIPE, text=True
        )
        self.starter = int(self.process.stdout.readline())
        self.clients: list[subprocess.Popen] = []

    def java(self, *arguments, **options) -> subprocess.Popen:
        command = [sys.executable, "-I", "-S", "-B", CLIENT, self.place, *arguments]
        client = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=self.directory, **options)
        self.clients.append(client)
        return client

    def executor(self, script: str) -> tuple[subprocess.Popen, Process]:
        """An executor that runs a script of the shell, and its process once it does."""
        told = self.directory / f"pid{len(self.clients)}"
        client = self.java("/bin/sh", "-c", f"echo $$ > {told}.new; mv {told}.new {told}; {script}")
        until(told.exists)
        return client, Process.of(int(told.read_text()))

    def end(self) -> None:
        for process in [*self.clients, self.process]:
            process.kill()
            process.communicate()


def until(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def directory():
    path = Path(tempfile.mkdtemp(prefix="sb-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def worker(directory):
    worker = Worker(directory)
    yield worker
    worker.end()


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_java_ends_with_the_status_of_its_executor(worker, script, status):
    client = worker.java("/bin/sh", "-c", script)
    assert client.communicate(timeout=60) == (None, b"")
    assert client.returncode == status


def test_arguments_environment_and_directory_are_handed_over_as_they_are(worker):
    odd = ["", " a  b ", "line\nline", "ünï", b"\xff\xfe", "x" * 100_000]
    program = "import os, sys; print((sys.argv[1:], os.getcwd(), dict(os.environ)), file=open('seen', 'w'))"
    environment = {"SPARK_USER": "a=b=c", "EMPTY": "", "LANG": "C.UTF-8"}
    client = worker.java(sys.executable, "-c", program, *odd, env=environment)
    assert client.wait(60) == 0
    arguments, place, seen = eval((worker.directory / "seen").read_text())  # noqa: S307 - our own
    assert [os.fsencode(argument) for argument in arguments] == [os.fsencode(argument) for argument in odd]
    assert place == str(worker.directory)
    assert seen.items() >= environment.items()


def test_an_executor_has_no_open_file_of_the_starter(worker):
    client, _ = worker.executor("exec sleep 100")
    seen = worker.directory / "files"
    other = worker.java("/bin/sh", "-c", f"ls -l /proc/$$/fd > {seen}")
    assert other.wait(60) == 0
    assert "socket" not in "".join(line for line in seen.read_text().splitlines() if " 2 -> " not in line)
    assert client.poll() is None


def test_asked_to_end_the_executor_is_asked_to_end(worker):
    client, executor = worker.executor("trap 'exit 5' TERM; while :; do sleep 0.1; done")
    client.terminate()
    assert client.wait(60) == 5
    assert not executor.alive


def test_an_executor_that_does_not_listen_ends_when_the_java_is_killed(worker):
    client, executor = worker.executor("trap '' TERM; while :; do sleep 0.1; done")
    client.terminate()
    time.sleep(0.3)
    assert client.poll() is None
    assert executor.alive
    client.kill()
    until(lambda: not executor.alive)


def test_one_that_is_killed_before_it_became_an_executor_becomes_none(worker):
    go, seen = worker.directory / "go", worker.directory / "seen"
    client = worker.java("wait", go, "/usr/bin/touch", seen)
    until(lambda: len(children(worker.starter)) == 1)
    client.kill()
    until(lambda: children(worker.starter) == [])
    go.touch()
    assert not seen.exists()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whatever_ends_the_worker_ends_all_of_it(worker, number):
    client, executor = worker.executor("trap '' TERM; while :; do sleep 0.1; done")
    starter = Process.of(worker.starter)
    worker.process.send_signal(number)
    worker.process.wait(60)
    until(lambda: not executor.alive and not starter.alive)
    client.wait(60)


def test_without_its_starter_no_executor_runs_and_none_starts_and_each_says_so(worker):
    client, executor = worker.executor("trap '' TERM; while :; do sleep 0.1; done")
    os.kill(worker.starter, signal.SIGKILL)
    _, said = client.communicate(timeout=60)
    assert client.returncode == 2
    assert said.startswith(b"sealbook node: The executor starter of this worker has ended")
    until(lambda: not executor.alive)
    late = worker.java("/bin/true")
    _, said = late.communicate(timeout=60)
    assert late.returncode == 2
    assert said.startswith(b"sealbook node: The executor starter of this worker cannot be reached")
    assert len(said.splitlines()) == 1


def test_what_is_refused_is_said_to_the_java_and_the_next_is_served(worker):
    refused = worker.java("refuse")
    assert refused.communicate(timeout=60)[1] == b"sealbook node: This one is refused.\n"
    assert refused.returncode == 1
    failed = worker.java("fail")
    _, said = failed.communicate(timeout=60)
    assert said == b"sealbook node: This executor could not be set up (ValueError).\n"
    assert failed.returncode == 1
    missing = worker.java("/no/such/java")
    assert missing.communicate(timeout=60)[1] == b"sealbook node: /no/such/java: No such file or directory.\n"
    assert worker.java("/bin/true").wait(60) == 0


def test_one_that_takes_long_holds_up_no_other(worker):
    go, end = worker.directory / "go", worker.directory / "end"
    first, _ = worker.executor(f"while ! [ -e {end} ]; do sleep 0.05; done; exit 3")
    # Not yet a JVM, a fork has copies of what its starter has.
    slow = worker.java("wait", go, "/bin/true")
    until(lambda: len(children(worker.starter)) == 2)
    end.touch()
    assert first.wait(60) == 3
    assert slow.poll() is None
    go.touch()
    assert slow.wait(60) == 0


def connected(worker) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(worker.place))
    return connection


def answer(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(4096):
            received += piece
    return received


HONEST = executor_client.request(["/bin/true"], {b"A": b"b"}, b"/")


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        ((executor_request.MAX_BYTES + 1).to_bytes(4, "big"), b"at most 262144 bytes"),
        (b"\xff\xff\xff\xff", b"at most 262144 bytes"),
        (b"\0\0\0\0", b"not a request"),
        (HONEST + b"x", b"stands behind the request"),
        (HONEST + b"TxT", b"stands behind the request"),
    ],
)
def test_what_is_no_request_is_refused(worker, sent, part):
    with connected(worker) as connection:
        connection.sendall(sent)
        assert part in answer(connection)
    assert children(worker.starter) == []


def test_half_a_request_starts_nothing(worker):
    with connected(worker) as connection:
        connection.sendall(HONEST[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection) == b""


def test_who_says_nothing_is_not_waited_for(directory):
    worker = Worker(directory, "0.2")
    try:
        with connected(worker) as silent, connected(worker) as slow:
            slow.sendall(HONEST[:3])
            assert answer(silent) == answer(slow) == b""
        client, _ = worker.executor("sleep 1; exit 4")  # an executor may run longer
        assert client.wait(60) == 4
    finally:
        worker.end()


def test_only_so_many_are_connected(directory):
    worker = Worker(directory, "3600")  # nobody is sent away for being silent
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(executor_starter.MAX_CALLERS):
                stack.enter_context(connected(worker))
            with connected(worker) as another:
                assert answer(another) == b""
        until(lambda: worker.java("/bin/true").wait(60) == 0)
    finally:
        worker.end()


def test_another_user_starts_nothing_even_where_the_directory_lets_them_in(worker):
    if os.geteuid() != 0:
        pytest.skip("needs root: becomes another user")
    worker.directory.chmod(0o755)
    worker.place.chmod(0o777)
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); c = socket.socket(socket.AF_UNIX); "
        "c.settimeout(60); c.connect(sys.argv[1]); c.sendall(bytes.fromhex(sys.argv[2])); print(c.recv(100))"
    )
    arguments = ["-S", "-I", "-c", program, worker.place, HONEST.hex()]
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    done = subprocess.run([python, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "b''" or "reset" in done.stderr or "Broken pipe" in done.stderr, done
    # Its own user has an answer.
    with connected(worker) as connection:
        connection.sendall(HONEST)
        assert answer(connection) == b"\0"


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o777])
def test_a_directory_that_others_can_enter_is_refused(directory, mode):
    directory.chmod(mode)
    with pytest.raises(RefusedError, match="0700"):
        executor_starter.listen(directory / "s")


def test_a_request_is_read_as_the_client_writes_it():
    sent = executor_client.request(["a", "", "b\nc"], {b"X": b"1", b"Y": b"a=b"}, b"/work/app")
    length = ExecutorRequest.length(sent[:4])
    assert length == len(sent) - 4
    read = ExecutorRequest.parse(sent[4:])
    assert read.directory == Path("/work/app")
    assert read.arguments == ("a", "", "b\nc")
    assert read.environment == {"X": "1", "Y": "a=b"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"/x",
        b"/x\0",
        b"/x\0-1",
        b"/x\0one",
        b"/x\0" + b"9" * 7,
        b"/x\0" + "١".encode() + b"\0a",
        b"/x\x002\0a",
        b"/x\x001\0a\0NAME",
        b"/x\x001\0a\0=x",
        b"/x\x000\0",
    ],
)
def test_bytes_that_are_no_request_are_refused(body):
    with pytest.raises(InputError):
        ExecutorRequest.parse(body)
