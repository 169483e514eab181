"""What a JVM is told in Gramine, and the starter that forks in its place; neither needs Gramine."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import socket
import struct
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

from sealbook.errors import RefusedError
from sealbook.spark import gramine_jvm, python_functions
from sealbook.spark.starter import fork_starter


def command(role="spark-executor", *more):
    return ["java", "-Xmx600m", *gramine_jvm.options(role, "600m"), *more]


@pytest.mark.parametrize("role", ["spark-worker", "spark-executor", "spark-driver", "local"])
def test_the_memory_of_a_jvm_is_all_there_from_the_beginning(role):
    options = gramine_jvm.options(role, "600m")
    gramine_jvm.check(command(role))
    assert "-Xms600m" in options
    reserved = [each for each in options if each.startswith("-XX:ReservedCodeCacheSize=")]
    assert reserved == [each.replace("Initial", "Reserved") for each in options if "InitialCodeCache" in each]


@pytest.mark.parametrize("missing", range(9))
def test_each_of_the_options_is_asked_for(missing):
    whole = command()
    stable = [each for each in whole if "ActiveProcessor" not in each and "ClassSpace" not in each]
    del stable[1 + missing]
    with pytest.raises(RefusedError, match="crashes there"):
        gramine_jvm.check(stable)


@pytest.mark.parametrize(
    "more",
    [
        "-XX:+SegmentedCodeCache",
        "-Xmx2g",
        "-XX:ReservedCodeCacheSize=240m",
        "-XX:-UseSerialGC",
    ],
)
def test_what_is_said_later_does_not_change_it(more):
    with pytest.raises(RefusedError):
        gramine_jvm.check(command("spark-executor", more))


# -- the starter ---------------------------------------------------------------------------------


class Jvm:
    """A JVM's side of the starter: a process that forks it and becomes something else, as the agent does."""

    def __init__(self, directory: Path) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            path = fork_starter(directory)
            os.write(writer, str(path).encode() + b"\n")
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])  # noqa: S606
        self.path = os.read(reader, 4096).decode().strip()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.settimeout(30)
        return connection

    def start(self, *argv, directory="", environment=None):
        control = self.connect()
        request = {"command": list(argv), "directory": directory, "environment": environment or {"A": "b"}}
        data = json.dumps(request).encode()
        control.sendall(struct.pack(">I", len(data)) + data)
        streams = self.connect()
        return number(control), control, streams

    def end(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def number(control):
    (found,) = struct.unpack(">i", control.recv(4, socket.MSG_WAITALL))
    return found


@pytest.fixture
def jvm():
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp") as directory:
        started = Jvm(Path(directory))
        yield started
        started.end()


def test_a_process_has_the_socket_for_its_streams_and_its_status_comes_back(jvm, tmp_path):
    pid, control, streams = jvm.start(
        sys.executable,
        "-c",
        "import os,sys; print(sorted(os.environ), os.getcwd(), input()); sys.exit(3)",
        directory=str(tmp_path),
        environment={"A": "b"},
    )
    assert pid > 0
    streams.sendall(b"given\n")
    assert streams.makefile().read() == f"['A', 'LC_CTYPE'] {tmp_path} given\n"
    assert number(control) == 3


def test_a_program_that_is_not_there_ends_with_127(jvm):
    _, control, _ = jvm.start("/nowhere/program")
    assert number(control) == 127


@pytest.mark.parametrize("asked", [15, 9])
def test_a_process_is_ended_when_the_jvm_asks(jvm, asked):
    _, control, _ = jvm.start("/bin/sleep", "600")
    control.sendall(bytes([asked]))
    assert number(control) == 128 + asked


def test_a_process_ends_when_nobody_waits_for_it_any_more(jvm):
    pid, control, streams = jvm.start("/bin/sleep", "600")
    control.close()
    streams.close()
    assert gone(pid)


def test_with_the_jvm_ends_the_starter_and_what_it_started(jvm):
    pid, _, _ = jvm.start("/bin/sleep", "600")
    os.kill(jvm.pid, 9)
    assert gone(pid)
    deadline = time.monotonic() + 20
    while True:
        try:
            jvm.connect().close()
        except OSError:
            return
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x02[]",
        b'\x00\x00\x00\x37{"command":[1],"directory":"","environment":{"A":"b"}}  ',
        b"\x00\x00",
    ],
)
def test_a_request_that_is_none_is_dropped_and_the_next_one_served(jvm, sent):
    connection = jvm.connect()
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):  # it had not read all of it
        assert connection.recv(4) == b""
    _, control, _ = jvm.start("/bin/true")
    assert number(control) == 0


def test_a_request_that_is_too_long_is_dropped_and_not_waited_for(jvm):
    connection = jvm.connect()
    # Far less than the starter's patience with somebody who sends nothing.
    connection.settimeout(15)
    connection.sendall(struct.pack(">I", (1 << 20) + 1))
    assert connection.recv(4) == b""


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# -- Python functions ----------------------------------------------------------------------------


def test_a_kernel_in_gramine_sends_no_python_function(tmp_path, monkeypatch):
    rdd = types.SimpleNamespace(_prepare_for_python_RDD=lambda *given: given)
    monkeypatch.setattr(gramine_jvm, "MARK", tmp_path / "none")
    python_functions.guard(rdd)
    assert rdd._prepare_for_python_RDD("context", "command") == ("context", "command")
    monkeypatch.setattr(gramine_jvm, "MARK", tmp_path)
    python_functions.guard(rdd)
    with pytest.raises(RefusedError, match=r"Python functions .* do not run in executors in Gramine"):
        rdd._prepare_for_python_RDD("context", "command")


def test_every_python_function_goes_through_what_is_guarded():
    pytest.importorskip("pyspark")
    import pyspark.core.rdd
    import pyspark.sql.udf

    assert "_prepare_for_python_RDD(" in inspect.getsource(pyspark.core.rdd._wrap_function)
    assert "_prepare_for_python_RDD(" in inspect.getsource(pyspark.sql.udf._wrap_function)


def test_both_sides_say_the_same_sentence():
    source = Path(__file__).parents[2] / "kernel/java/src/sealbook/processes/Starter.java"
    said = "".join(re.findall(r'"([^"]*)"', source.read_text().partition("NO_PYTHON =")[2].partition(";")[0]))
    assert said == python_functions.SENTENCE
