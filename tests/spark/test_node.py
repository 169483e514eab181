"""The agent: what it enrols with, hands over, and takes from a worker."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from profile_of_a_test import PROFILE

from broker_service import CLUSTER, served
from sealbook.errors import InputError, RefusedError
from sealbook.spark import credentials, node
from sealbook.spark.credentials import Gateway
from sealbook.spark.node_plan import LONGEST_TEMPORARY, NodePlan
from sealbook.spark.profiles import Owner, Profile


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
        profile = Profile(
            *(CLUSTER, "spark://127.0.0.1:7077", broker.url, broker.ca),
            owners=(Owner("hospital", other.url, other.ca),),
        )
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


def test_the_java_of_a_worker_is_the_agent(short, monkeypatch):
    monkeypatch.setenv("SEALBOOK_HOME", "/home/it's me")
    written = plan(short)
    home = node.write_java_home(written)
    text = (home / "bin/java").read_text()
    assert text.splitlines()[0] == "#!/bin/sh"
    assert f"exec {sys.executable} -I -B -m sealbook.spark.node {written.file} executor" in text
    done = subprocess.run(["sh", "-n", home / "bin/java"], capture_output=True)
    assert done.returncode == 0
    assert (home / "bin/java").stat().st_mode & 0o777 == 0o700


def test_waiting_for_a_master_ends_with_one_sentence(short):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        import dataclasses

        profile = dataclasses.replace(PROFILE, master=f"spark://127.0.0.1:{port}")
        node.wait_for_master(plan(short, profile=profile, wait_seconds=1))
    with pytest.raises(InputError, match=r"cannot be reached from 127\.0\.0\.1 within 1 seconds"):
        node.wait_for_master(plan(short, profile=profile, wait_seconds=1))


@pytest.mark.parametrize("arguments", [[], ["x", "y"], ["/none"]])
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
