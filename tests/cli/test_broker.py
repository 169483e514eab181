"""`sealbook broker`: the service as a process, its clusters and its nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import Measurement, SimulatedPlatform, policy_text
from sealbook.broker import AuditLog
from sealbook.broker.client import BrokerClient
from sealbook.errors import RefusedError

PASSPHRASE = "correct horse battery"
MEASUREMENT = Measurement(mrenclave=b"\x31" * 32, files=1, roots=("test",), seconds=0.0)


@pytest.fixture
def home(tmp_path) -> Path:
    """The directory of an owner with the policy `nodes`."""
    platform = SimulatedPlatform.load_or_create(tmp_path / "simulated-platform")
    now = datetime.now(UTC) - timedelta(hours=1)
    text = policy_text(id="nodes", mrenclave=MEASUREMENT.mrenclave, root=platform.root_certificate, now=now)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "nodes.toml").write_text(text)
    return tmp_path


def handed_over(home: Path, passphrase: str | None) -> tuple[dict[str, str], list[int]]:
    environment = os.environ | {"SEALBOOK_HOME": str(home)}
    if passphrase is None:
        return environment, []
    reader, writer = os.pipe()
    os.write(writer, passphrase.encode())
    os.close(writer)
    return environment | {"SEALBOOK_PASSPHRASE_FD": str(reader)}, [reader]


def run(home: Path, *arguments: str, passphrase: str | None = PASSPHRASE) -> subprocess.CompletedProcess[str]:
    environment, descriptors = handed_over(home, passphrase)
    try:
        return subprocess.run(
            [sys.executable, "-m", "sealbook", "broker", *arguments],
            env=environment,
            pass_fds=descriptors,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # no terminal to ask at
        )
    finally:
        for each in descriptors:
            os.close(each)


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    environment, descriptors = handed_over(home, PASSPHRASE)
    ready, tell = os.pipe()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sealbook",
            "broker",
            "serve",
            "--port",
            "0",
            f"--ready-fd={tell}",
            *arguments,
        ],
        env=environment,
        pass_fds=[*descriptors, tell],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for each in (tell, *descriptors):
        os.close(each)
    try:
        with open(ready, "rb") as file:
            line = file.read()
        yield json.loads(line), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def enrol(home: Path, facts: dict[str, Any], **kw: Any) -> Any:
    platform = SimulatedPlatform.load_or_create(home / "simulated-platform")
    client = BrokerClient(facts["url"], Path(facts["ca"]).read_text())
    return client, client.enrol(platform.attester(MEASUREMENT), role="spark-worker", **kw)


def test_a_node_enrols_is_listed_and_is_out_when_it_is_revoked(home):
    assert run(home, "cluster", "add", "trial", "--policy", "nodes").returncode == 0
    with serving(home) as (facts, _):
        client, node = enrol(home, facts, cluster="trial")
        _, other = enrol(home, facts, cluster="trial")
        listed = json.loads(run(home, "nodes", "--json", passphrase=None).stdout)["nodes"]
        assert {each["session"] for each in listed} == {node.session, other.session}
        assert {each["cluster"] for each in listed} == {"trial"}
        assert node.session in run(home, "nodes", passphrase=None).stdout
        assert len(client.members(node)) == 2
        assert run(home, "revoke", node.session, passphrase=None).returncode == 0
        with pytest.raises(RefusedError, match="revoked"):
            client.members(node)
        assert [member.session for member in client.members(other)] == [other.session]
        again = run(home, "revoke", node.session, passphrase=None)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    log = AuditLog(home / "audit.jsonl")
    assert log.verify().ok
    assert [entry["session"] for entry in log.entries() if entry["event"] == "revoke"] == [node.session]


def test_the_service_ends_at_sigterm_with_status_0_and_no_noise(home):
    with serving(home, "--policy", "nodes") as (facts, process):
        enrol(home, facts)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == ""
    assert facts["url"] in output
    assert facts["ca"] in output


def test_a_request_under_way_is_finished_when_the_service_is_told_to_end(home):
    import threading

    with serving(home, "--policy", "nodes") as (facts, process):
        done = []
        thread = threading.Thread(target=lambda: done.append(enrol(home, facts)))
        thread.start()
        thread.join(20)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert done


def test_a_cluster_is_made_rotated_and_removed(home):
    assert run(home, "cluster", "add", "trial", "--policy", "nodes").returncode == 0
    assert json.loads(run(home, "cluster", "rotate", "trial", "--json").stdout)["version"] == 2
    listed = json.loads(run(home, "cluster", "list", "--json").stdout)["clusters"]
    assert [(each["cluster"], each["policy"], each["version"]) for each in listed] == [("trial", "nodes", 2)]
    assert run(home, "cluster", "remove", "trial").returncode == 0
    assert json.loads(run(home, "cluster", "list", "--json").stdout)["clusters"] == []
    events = [entry["decision"] for entry in AuditLog(home / "audit.jsonl").entries()]
    assert events == ["added", "rotated", "removed"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("serve", "--policy", "absent"), 2, "There is no policy 'absent'"),
        (("serve", "--host", "256.0.0.1"), 2, "cannot listen"),
        (("serve", "--san", "a b"), 2, "names and addresses"),
        (("cluster", "add", "x", "--policy", "absent"), 2, "There is no policy"),
        (("cluster", "add", "X", "--policy", "nodes"), 2, "is not a name for a cluster"),
        (("cluster", "rotate", "absent"), 1, "has no cluster"),
        (("cluster", "remove", "absent"), 1, "has no cluster"),
        (("revoke", "absent"), 2, "There is no session"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_sentence(home, arguments, status, words):
    done = run(home, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    assert words in done.stderr


def test_a_busy_port_and_a_locked_keyring_are_one_sentence_each(home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(home, "serve", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Address already in use" in done.stderr
    for passphrase, words in ((None, "The keyring is locked"), ("wrong wrong", "the passphrase is wrong")):
        done = run(home, "serve", "--port", "0", passphrase=passphrase)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr


def test_nothing_secret_is_in_the_files_that_are_written_for_others(home):
    with serving(home, "--policy", "nodes") as (facts, _):
        assert "PRIVATE" not in Path(facts["ca"]).read_text()
        assert set(facts) == {"ca", "name", "url"}
