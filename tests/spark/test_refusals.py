"""What a user gets wrong: one sentence, exit status 2, in a stated time, and nothing is left behind."""

from __future__ import annotations

import socket
import time

import pytest
from profile_of_a_test import authority


@pytest.fixture
def ca(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text(authority())
    return path


@pytest.fixture
def taken():
    """A port that something listens at and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free() -> int:
    """A port that nothing listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def refused(user, *arguments, **environment) -> str:
    # A command that hangs is killed, and fails the test; how fast this machine is says nothing.
    outcome = user.run("cluster", *arguments, **environment)
    assert outcome.status == 2, outcome
    sentence = outcome.err.strip().splitlines()[-1]
    assert sentence.startswith("sealbook: ")
    assert sentence.rstrip("`").endswith((".", ")")) or ": " in sentence
    assert "Traceback" not in outcome.err
    assert user.left() == []
    return sentence


def test_no_java(user, tmp_path):
    sentence = refused(user, "up", JAVA_HOME=None, PATH=str(tmp_path))
    assert "sudo apt install openjdk-17-jre-headless" in sentence


def test_a_java_that_is_too_old(user, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").write_text("#!/bin/sh\n")
    (tmp_path / "bin/java").chmod(0o755)
    (tmp_path / "release").write_text('JAVA_VERSION="11.0.1"\n')
    assert "is Java 11" in refused(user, "up", JAVA_HOME=str(tmp_path))


def test_a_java_home_without_java(user, tmp_path):
    assert "JAVA_HOME is" in refused(user, "up", JAVA_HOME=str(tmp_path))


def test_a_busy_port_of_the_broker(user, taken):
    sentence = refused(user, "up", "--port", free(), "--broker-port", taken)
    assert f"127.0.0.1:{taken} (Address already in use): choose another with --broker-port" in sentence


def test_a_busy_port_of_the_master(user, taken, ca):
    sentence = refused(user, "up", "--port", taken, "--broker", "https://127.0.0.1:1", "--ca", ca)
    assert "choose another with --port" in sentence


def test_a_broker_that_is_down(user, ca):
    sentence = refused(
        user, "join", "--broker", "https://127.0.0.1:1", "--master", "spark://127.0.0.1:7", "--ca", ca
    )
    assert "does not answer (Connection refused)" in sentence


def test_a_broker_that_is_slow_is_given_up_after_the_stated_time(user, ca, taken):
    sentence = refused(
        user,
        *("join", "--broker", f"https://127.0.0.1:{taken}", "--master", "spark://127.0.0.1:7", "--ca", ca),
        *("--timeout", 6),
    )
    assert "Within 6 seconds" in sentence


def test_a_policy_that_admits_no_node(user):
    from sealbook.attestation.policy_text import policy_text
    from sealbook.attestation.simulated import SimulatedPlatform

    directory = user.home / "policies"
    directory.mkdir(parents=True)
    platform = SimulatedPlatform.load_or_create(user.home / "simulated-platform")
    from datetime import UTC, datetime

    text = policy_text(mrenclave=bytes(32), root=platform.root_certificate, now=datetime.now(UTC))
    (directory / "simulated.toml").write_text(text)
    sentence = refused(user, "up", "--port", free(), "--broker-port", free())
    assert "The policy admits no node of this machine" in sentence
    assert "`sealbook install`" in sentence


def test_what_measures_the_nodes_ends_with_a_start_that_is_given_up(user, tmp_path, monkeypatch):
    """It is a process of its own, and runs for seconds."""
    from sealbook.errors import InputError
    from sealbook.spark import cluster

    monkeypatch.setenv("SEALBOOK_HOME", str(user.home))
    monkeypatch.setenv("TMPDIR", user.environment["TMPDIR"])
    monkeypatch.setattr("tempfile.tempdir", None)

    def broker():
        while not any("measurement.py" in command for command in user.left()):
            time.sleep(0.02)
        raise InputError("No.")

    with pytest.raises(InputError, match="No"):
        cluster.up("lab", cluster.Size(1), broker, port=free())
    assert user.left() == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("up", "Lab"), "is not a name for a cluster"),
        (("up", "--workers", "0"), "1 to 16 workers"),
        (("up", "--workers", "17"), "1 to 16 workers"),
        (("up", "--workers", "two"), "integer"),
        (("up", "--cores", "0"), "cores"),
        (("up", "--memory", "2"), "amount of memory"),
        (("up", "--memory", "100m"), "too little"),
        (("up", "--port", "0"), "is not a port"),
        (("up", "--port", "70000"), "is not a port"),
        (("up", "--host", "192.0.2.99"), "choose another"),
        (("up", "--timeout", "0"), "timeout"),
        (("up", "--ca", "x.pem"), "--broker"),
        (("up", "--broker", "https://127.0.0.1:1"), "--ca"),
        (("up", "--owner", "a=https://127.0.0.1:1"), "--owner-ca"),
        (("up", "--owner", "a=https://127.0.0.1:1", "--owner-ca", "b=CA"), "--owner-ca"),
        (("up", "--owner", "a=http://127.0.0.1:1", "--owner-ca", "a=README"), "README"),
        (
            (
                *("up", "--owner", "a=https://127.0.0.1:1", "--owner-ca", "a=CA"),
                *("--broker", "https://127.0.0.1:1", "--ca", "CA"),
            ),
            "sealbook broker cluster owner",
        ),
        (("up", "--broker", "http://127.0.0.1:1", "--ca", "CA"), "https://host:port"),
        (("up", "--broker", "https://127.0.0.1:1", "--ca", "/none"), "/none"),
        (("join",), "--broker"),
        (("join", "--broker", "https://127.0.0.1:1", "--master", "127.0.0.1:7077", "--ca", "CA"), "spark://"),
        (("join", "--broker", "https://h:1", "--master", "spark://h:7", "--ca", "README"), "certificate"),
        (("status", "lab"), "There is no cluster 'lab' here"),
        (
            ("render", "k8s", "--broker", "https://h:1", "--ca", "CA", "--image", "node:latest"),
            "digest",
        ),
        (("render", "k8s"), "Say where the broker runs"),
    ],
)
def test_arguments_that_make_no_sense(user, ca, tmp_path, arguments, part):
    (tmp_path / "README").write_text("-----BEGIN NOTHING-----\n")
    named = {"CA": str(ca), "README": str(tmp_path / "README")}
    assert part in refused(user, *(named.get(each, each) for each in arguments))


def test_ending_what_is_not_there_is_no_error(user):
    outcome = user.run("cluster", "down", "lab")
    assert outcome.status == 0
    assert "There is no cluster 'lab' here" in outcome.out


def test_a_profile_that_is_damaged_is_said(user):
    user.home.mkdir()
    (user.home / "clusters.toml").write_text("schema = 7\n")
    assert "clusters.toml" in refused(user, "status", "lab")
