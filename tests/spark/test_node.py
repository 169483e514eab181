"""The agent: what it enrols with, hands over, and takes from a worker."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from profile_of_a_test import PROFILE

from broker_service import CLUSTER, served
from sealbook.broker.certificates import authority_id
from sealbook.broker.owners import Owner
from sealbook.errors import InputError, RefusedError
from sealbook.spark import credentials, node
from sealbook.spark.credentials import Gateway
from sealbook.spark.node_plan import LONGEST_TEMPORARY, NodePlan
from sealbook.spark.profiles import Profile


@pytest.fixture
def broker(tmp_path):
    with served(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def enrolled(broker, tmp_path):
    profile = Profile(CLUSTER, "spark://127.0.0.1:7077", broker.url, broker.ca)
    return credentials.enrol(profile, credentials.WORKER, broker.attester(), ["127.0.0.1"])


def content(frame: bytes) -> dict:
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return json.loads(frame[4:])


def test_the_frame_has_what_the_contract_says(enrolled):
    frame = content(enrolled.frame())
    assert set(frame) == {
        *("v", "role", "cluster", "session", "tls_private_key", "hpke_private_key", "report_data"),
        *("certificate", "ca", "cluster_secret", "poll_seconds", "brokers"),
    }
    assert frame["role"] == "spark-worker"
    assert len(base64.b64decode(frame["cluster_secret"])) == 32
    assert len(base64.b64decode(frame["hpke_private_key"])) == 32
    assert len(base64.b64decode(frame["report_data"])) == 64
    assert [broker["owner"] for broker in frame["brokers"]] == [""]


def test_nothing_secret_is_in_what_is_shown_of_credentials(enrolled):
    shown = repr(enrolled)
    for secret in (enrolled.tls_private_key, enrolled.hpke_private_key, enrolled.cluster_secret):
        assert repr(secret) not in shown
        assert secret.hex() not in shown
    assert "token" not in repr(Gateway("PEM", b"key", "hunter2"))
    assert "hunter2" not in repr(Gateway("PEM", b"key", "hunter2"))


def test_a_driver_has_the_gateway_too_and_a_local_one_nothing_else(enrolled):
    gateway = Gateway("PEM", b"key", "word", "/x/port")
    assert content(enrolled.frame(gateway))["gateway"] == {
        "certificate": "PEM",
        "private_key": base64.b64encode(b"key").decode(),
        "token": "word",
        "port_file": "/x/port",
    }
    assert set(content(credentials.local_frame(gateway))) == {"v", "role", "gateway"}


def test_two_owners_get_the_same_key_and_each_gives_its_own_certificate(broker, tmp_path):
    # The same machine for both, whose root both trust.
    shutil.copytree(tmp_path / "broker/platform", tmp_path / "other/platform")
    with served(tmp_path / "other") as other:
        broker.service.partners.add_owner(CLUSTER, Owner("hospital", other.url, other.ca))
        other.service.partners.set_home(CLUSTER, authority_id(broker.ca))
        profile = Profile(CLUSTER, "spark://127.0.0.1:7077", broker.url, broker.ca)
        both = credentials.enrol(profile, credentials.EXECUTOR, broker.attester(), ["127.0.0.1"])
    assert [access.owner for access in both.brokers] == ["", "hospital"]
    first, second = (access.certificate for access in both.brokers)
    assert first != second
    from cryptography import x509

    keys = {
        x509.load_pem_x509_certificate(pem.encode()).public_key().public_numbers() for pem in (first, second)
    }
    assert len(keys) == 1


def test_a_refusal_says_which_broker_it_was(broker):
    profile = Profile("unknown", "spark://127.0.0.1:7077", broker.url, broker.ca)
    with pytest.raises(RefusedError, match=r"The broker of the cluster 'unknown' at .* did not admit"):
        credentials.enrol(profile, credentials.WORKER, broker.attester(), ["127.0.0.1"])


@pytest.mark.parametrize("size", [1, 65536, credentials.MAX_FRAME_BYTES + 4])
def test_a_frame_of_any_size_fits_into_its_pipe_before_anybody_reads(size):
    reader = credentials.into_pipe(b"x" * size)
    assert not os.get_inheritable(reader)
    read = b""
    while piece := os.read(reader, 1 << 16):
        read += piece
    os.close(reader)
    assert read == b"x" * size


def test_a_frame_that_is_too_long_is_not_made():
    with pytest.raises(ValueError, match="too long"):
        credentials.local_frame(Gateway("x" * credentials.MAX_FRAME_BYTES, b"", ""))


def plan(directory: Path, **changes) -> NodePlan:
    fields = {
        "profile": PROFILE,
        "role": credentials.WORKER,
        "host": "127.0.0.1",
        "port": 0,
        "directory": directory,
        "java": Path("/usr/bin/java"),
        **changes,
    }
    return NodePlan(**fields)


@pytest.fixture
def short():
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="sb-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def test_a_plan_is_read_as_it_was_written(short):
    written = plan(short)
    written.write()
    assert NodePlan.read(written.file) == written
    assert written.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":1,"x":1'),
        ('"port":0', '"port":"0"'),
        ('"port":0', '"port":false'),
        ('"role":"spark-worker"', '"role":"spark-executor"'),
        ('"master":"spark://', '"master":"http://'),
    ],
)
def test_a_plan_that_says_anything_else_is_refused(short, before, after):
    written = plan(short)
    written.write()
    text = written.file.read_text()
    assert before in text
    written.file.write_text(text.replace(before, after))
    with pytest.raises(InputError):
        NodePlan.read(written.file)


def test_a_directory_whose_name_is_too_long_for_sockets_is_refused(tmp_path):
    with pytest.raises(InputError, match="too long a name"):
        plan(Path("/tmp") / ("x" * 60))


def test_the_longest_name_that_is_taken_still_has_room_for_a_socket(short):
    import uuid

    directory = Path("/tmp")
    longest = LONGEST_TEMPORARY - len("/t") - len("/e") - 8
    directory /= "x" * (longest - len("/tmp/"))
    temporary = plan(directory).temporary / ("e" + "y" * 8)
    assert len(os.fsencode(str(temporary / f".{uuid.uuid4()}.sock"))) <= 107


def test_of_a_workers_environment_little_is_taken_over(tmp_path):
    given = {
        "SPARK_EXECUTOR_DIRS": f"{tmp_path}/a:{tmp_path}/b",
        "SPARK_USER": "me",
        "LD_PRELOAD": "/evil.so",
        "JAVA_TOOL_OPTIONS": "-agentlib:x",
        "PYTHONPATH": "/evil",
        "_SPARK_AUTH_SECRET": "x",
    }
    assert node.from_worker(given, tmp_path) == {
        "SPARK_EXECUTOR_DIRS": f"{tmp_path}/a:{tmp_path}/b",
        "SPARK_USER": "me",
    }


@pytest.mark.parametrize("place", ["/tmp", "{own}/../x", "{own}:/etc", "{own}x"])
def test_an_executor_writes_only_where_its_node_does(tmp_path, place):
    own = tmp_path / "local"
    with pytest.raises(RefusedError, match="would write to"):
        node.from_worker({"SPARK_EXECUTOR_DIRS": place.format(own=own)}, own)


@pytest.mark.parametrize(
    ("forking", "what"),
    [
        (True, "{python} -S -I -B {package}/spark/executor_client.py '{plan.starter}' "),
        (False, "{python} -I -B -m sealbook.spark.node '{plan.file}' executor "),
    ],
)
def test_the_java_of_a_worker_has_the_starter_fork_or_is_the_agent_in_an_enclave(short, forking, what):
    directory = short / "it's me"
    directory.mkdir()
    written = plan(directory)
    java = node.write_java_home(written, forking=forking) / "bin/java"
    first, command = java.read_text().splitlines()
    assert first == "#!/bin/sh"
    package = Path(node.__file__).parents[1]
    quoted = what.format(python=sys.executable, package=package, plan=written).replace("it's", """it'"'"'s""")
    assert command == f'exec {quoted}"$@"'
    assert subprocess.run(["sh", "-n", java], capture_output=True).returncode == 0
    assert java.stat().st_mode & 0o777 == 0o700


def test_waiting_for_a_master_ends_with_one_sentence(short):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        import dataclasses

        profile = dataclasses.replace(PROFILE, master=f"spark://127.0.0.1:{port}")
        node.wait_for_master(plan(short, profile=profile, wait_seconds=1))
    with pytest.raises(InputError, match=r"cannot be reached from 127\.0\.0\.1 within 1 seconds"):
        node.wait_for_master(plan(short, profile=profile, wait_seconds=1))


@pytest.mark.parametrize("arguments", [[], ["x", "y"], ["/none"], ["together"]])
def test_the_agent_alone_says_that_it_is_started_by_others(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-m", "sealbook.spark.node", *arguments],
        env={"SEALBOOK_HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sealbook node: ")
    assert len(done.stderr.splitlines()) == 1


TOGETHER = [sys.executable, "-I", "-B", Path(__file__).with_name("measured_node.py"), "together"]


@pytest.fixture
def group():
    """An agent that is going to start nodes of these plans."""
    started = []

    def start(*plans: NodePlan) -> subprocess.Popen:
        agent = subprocess.Popen(
            [*TOGETHER, *(each.file for each in plans)],
            env=os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(agent)
        return agent

    yield start
    for agent in started:
        agent.kill()
        agent.communicate()


def test_nodes_start_once_they_are_told_and_each_in_a_session_and_with_a_log_of_its_own(short, group):
    plans = []
    for name in ("a", "b"):
        (short / name).mkdir(mode=0o700)
        plans.append(plan(short / name, role=credentials.MASTER, port=1, java=Path("/none/java")))
    agent = group(*plans)
    # Also written later than the agent is started: it reads them when they may start.
    assert json.loads(agent.stdout.readline()) == {"measurement": "31" * 32}
    for each in plans:
        each.write()
    out, errors = agent.communicate("\n", timeout=100)
    pids = [json.loads(line)["pid"] for line in out.splitlines()]
    assert len(set(pids)) == 2
    assert errors == ""
    assert agent.returncode == 0
    for each in plans:
        deadline = time.monotonic() + 60
        while not each.log.exists() or not each.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # What each says is in its log alone: nothing listens at that port, and there is no such Java.
        assert each.log.read_text().startswith("sealbook node: ")
        assert len(each.log.read_text().splitlines()) == 1
        assert each.log.stat().st_mode & 0o777 == 0o600


def test_without_the_word_to_go_on_no_node_starts(short, group):
    (short / "a").mkdir(mode=0o700)
    one = plan(short / "a", role=credentials.MASTER, port=1, java=Path("/none/java"))
    one.write()
    agent = group(one)
    out, errors = agent.communicate(timeout=100)  # whoever started it has ended
    assert list(json.loads(out)) == ["measurement"]
    assert errors == ""
    assert not one.log.exists()


def test_an_executor_starts_only_in_a_directory_of_its_node(short, monkeypatch):
    """Runs what the starter runs in its fork, up to the JVM."""
    from sealbook.spark import executor_starter
    from sealbook.spark.executor_request import ExecutorRequest

    written = plan(short)
    (written.work / "app/0").mkdir(parents=True)
    (written.work / "away").symlink_to("/tmp")
    become = []
    monkeypatch.setattr(executor_starter, "ExecutorStarter", lambda _, run: become.append(run) or Forked())
    monkeypatch.setattr(node, "become_executor", lambda *given: become.append(given))
    monkeypatch.chdir(short)
    node._start_starter(written, "attester")
    become[0](ExecutorRequest(written.work / "app/0", ("a",), {"X": "y"}))
    assert become[1] == (written, ("a",), {"X": "y"}, "attester")
    assert Path.cwd() == (written.work / "app/0").resolve()
    for elsewhere in (short, Path("/tmp"), written.work / "..", written.work / "away"):
        with pytest.raises(RefusedError, match="is not in"):
            become[0](ExecutorRequest(elsewhere, (), {}))
    assert len(become) == 2


class Forked:
    def fork(self):
        return 1


def test_a_process_that_is_still_being_measured_does_not_keep_a_broker_waiting(broker):
    """The measuring may take longer than a broker keeps a connection open."""
    from sealbook.simulated_loader import MeasuredAttester

    asked = []

    class Slow(MeasuredAttester):
        def __init__(self):
            pass

        def wait(self):
            asked.append("waited")

        def quote(self, data):
            asked.append("quoted")
            return broker.attester().quote(data)

    profile = Profile(CLUSTER, "spark://127.0.0.1:7077", broker.url, broker.ca)
    credentials.enrol(profile, credentials.WORKER, Slow(), ["127.0.0.1"])
    assert asked == ["waited", "quoted"]
