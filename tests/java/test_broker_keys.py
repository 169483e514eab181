"""A node's JVM as its agent starts it: credentials in a frame on standard input, keys from a real broker."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker_service import CLUSTER, OTHER, NodeKeys, Served, served
from java_side import Lab
from sealbook import sealing
from sealbook.attestation import Policy, UnattestedAttester, policy_text
from sealbook.broker.certificates import authority_id
from sealbook.broker.client import Enrolment
from sealbook.sealing import InMemoryKeys, KeyProvider, SealingKey
from sealbook.spark.credentials import BrokerAccess, Credentials

ROLE = "spark-executor"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "broker") as world:
        yield world


def credentials_of(world: Served, enrolment: Enrolment) -> Credentials:
    assert enrolment.cluster_secret is not None
    return Credentials(
        role=enrolment.role,
        cluster=CLUSTER,
        session=enrolment.session,
        certificate=enrolment.certificate,
        ca=enrolment.ca,
        expires=enrolment.expires,
        report_data=enrolment.report_data,
        brokers=(BrokerAccess("", world.url, world.ca, enrolment.certificate, enrolment.report_data),),
        tls_private_key=enrolment.tls_private_key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        ),
        hpke_private_key=enrolment.hpke_private_key.private_bytes_raw(),
        cluster_secret=enrolment.cluster_secret,
    )


@pytest.fixture
def enrolment(world: Served) -> Enrolment:
    return world.enrol(role=ROLE, hosts=["127.0.0.1"])


@pytest.fixture
def node(build: Any, jar: Path, class_path: str, world: Served, enrolment: Enrolment) -> Iterator[Lab]:
    frame = credentials_of(world, enrolment).frame()
    lab = Lab(build.find_tool("java"), class_path, agent=jar, frame=frame)
    yield lab
    lab.close()


@pytest.fixture
def keys(world: Served) -> KeyProvider:
    """The same keys for Python, by another node's attestation."""
    return NodeKeys(world.client(), world.enrol(role="spark-driver"))


def releases(world: Served, enrolment: Enrolment) -> list[dict[str, Any]]:
    found = world.events("release")
    return [each for each in found if each["session"] == enrolment.session and each["key"] == "data"]


def test_fetches_do_not_grow_with_tasks(
    node: Lab, world: Served, enrolment: Enrolment, keys: KeyProvider, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, b"12345", key="data", keys=keys)
    assert node.ask("tasks", path=f"sealed://{path}", count=200) == {"bytes": 1000}
    assert len(releases(world, enrolment)) == 1
    assert node.ask("tasks", path=f"sealed://data{tmp_path}/out", count=100, write=True) == {"bytes": 100}
    # What is current counts for half a minute, which writing may take on a slow machine.
    assert 2 <= len(releases(world, enrolment)) <= 4
    assert node.ask("tasks", path=f"sealed://{path}", count=200) == {"bytes": 1000}
    assert 2 <= len(releases(world, enrolment)) <= 4
    assert sealing.read_bytes(tmp_path / "out" / "part-65", keys=keys) == b"A"


def test_what_it_seals_says_in_the_header_which_code_did(
    node: Lab, keys: KeyProvider, enrolment: Enrolment, tmp_path: Path
) -> None:
    assert node.write(f"sealed://data{tmp_path}/x", b"content") == {}
    assert sealing.read_bytes(tmp_path / "x", keys=keys) == b"content"
    said = sealing.inspect(tmp_path / "x").sealer
    assert said == {"attested": True, "measurement": "31" * 32, "simulated": True}


def test_what_a_node_without_evidence_seals_does_not_say_that_it_was_attested(
    build: Any, jar: Path, class_path: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC) - timedelta(hours=1)
    with served(tmp_path / "broker", unattested=True) as world:
        world.policies["direct"] = Policy.parse(policy_text(id="direct", tee="gramine-direct", now=now))
        world.keyring.create("open", guard="direct")
        world.service.clusters.add("unproven", policy="direct")
        enrolment = world.client().enrol(
            UnattestedAttester(), role=ROLE, cluster="unproven", hosts=["127.0.0.1"]
        )
        frame = replace(credentials_of(world, enrolment), cluster="unproven").frame()
        node = Lab(build.find_tool("java"), class_path, agent=jar, frame=frame)
        try:
            assert node.write(f"sealed://open{tmp_path}/x", b"content") == {}
        finally:
            node.close()
    assert sealing.inspect(tmp_path / "x").sealer == {"attested": False}


def test_a_rotated_key_opens_old_files(node: Lab, world: Served, keys: KeyProvider, tmp_path: Path) -> None:
    sealing.write_bytes(tmp_path / "old", b"old", key="data", keys=keys)
    world.keyring.rotate("data")
    sealing.write_bytes(tmp_path / "new", b"new", key="data", keys=keys)
    assert sealing.inspect(tmp_path / "new").keys == (("data", 2),)
    assert node.read(tmp_path / "old")["data"] == b"old"
    assert node.read(tmp_path / "new")["data"] == b"new"


def test_a_key_under_another_policy_is_refused_in_the_brokers_own_words(
    node: Lab, world: Served, tmp_path: Path
) -> None:
    world.add_policy("strict", measurement=OTHER)
    world.keyring.create("strict", guard="strict")
    said = node.write(f"sealed://strict{tmp_path}/x", b"content")
    assert said["error"] == "KeyUnavailableException"
    assert "cause" not in said
    assert len(said["message"]) < 600
    assert "\n" not in said["message"]
    assert not (tmp_path / "x").exists()
    missing = node.write(f"sealed://nobody{tmp_path}/x", b"content")
    assert missing["error"] == "KeyUnavailableException"
    assert "nobody" in missing["message"]


def test_a_revoked_node_gets_no_further_key(
    node: Lab, world: Served, enrolment: Enrolment, tmp_path: Path
) -> None:
    assert node.write(f"sealed://data{tmp_path}/x", b"content") == {}
    world.keyring.create("other", guard="nodes")
    world.service.sessions.revoke(enrolment.session)
    said = node.write(f"sealed://other{tmp_path}/y", b"content")
    assert said["error"] == "KeyUnavailableException"
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("end", ["rotate", "remove", "revoke"])
def test_keys_that_a_node_had_are_gone_when_its_membership_is(
    end: str, node: Lab, world: Served, enrolment: Enrolment, keys: KeyProvider, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, b"12345", key="data", keys=keys)
    assert node.read(path)["data"] == b"12345"
    {
        "rotate": lambda: world.service.clusters.rotate(CLUSTER),
        "remove": lambda: world.service.clusters.remove(CLUSTER),
        "revoke": lambda: world.service.sessions.revoke(enrolment.session),
    }[end]()
    said = _until_refused(node, path)
    assert said["error"] == "KeyUnavailableException"
    assert {"rotate": "has a new secret", "remove": "has no cluster", "revoke": "revoked"}[end] in said[
        "message"
    ]


def _until_refused(node: Lab, path: Path) -> dict[str, Any]:
    for _ in range(60):  # the next poll is a few seconds away
        said = node.read(path)
        if "error" in said:
            return said
        time.sleep(0.5)
    raise AssertionError("the key is still there")


def test_a_key_of_a_session_is_asked_of_no_broker(node: Lab, world: Served, tmp_path: Path) -> None:
    other = sealing.InMemoryKeys()
    other.create("session/default")
    sealing.write_bytes(tmp_path / "sealed", b"x", key="session/default", keys=other)
    for said in (
        node.write(f"sealed://{tmp_path}/x", b"content"),  # the key of a notebook that names none
        node.write(f"sealed://session+default{tmp_path}/x", b"content"),
        node.read(tmp_path / "sealed"),
    ):
        assert said["error"] == "KeyUnavailableException"
        assert said["message"] == (
            "Keys named session/... live in the memory of one kernel's side, and no node of a cluster has "
            "them: make a key that lasts, `sealbook keys create NAME`, and name it where you write: "
            "sealed://NAME/path."
        )
    assert [each for each in world.events("release") if each["key"].startswith("session/")] == []
    assert not (tmp_path / "x").exists()


def test_an_owner_is_asked_for_its_own_keys_and_for_no_others(
    build: Any, jar: Path, class_path: str, tmp_path: Path
) -> None:
    for name in ("home", "lab"):
        (tmp_path / name).mkdir()
    with served(tmp_path / "home") as home, served(tmp_path / "lab") as lab:
        for broker in (home, lab):
            for key in ("lab/patients", "labs/x", "team/data", "la/x"):
                broker.keyring.create(key, guard="nodes")
        lab.service.partners.set_home(CLUSTER, authority_id(home.ca))
        enrolment = home.enrol(role=ROLE, hosts=["127.0.0.1"])
        guest = lab.client().enrol_as_guest(lab.attester(), enrolment)
        credentials = credentials_of(home, enrolment)
        owner = BrokerAccess("lab", lab.url, lab.ca, guest.certificate, guest.report_data)
        credentials = replace(credentials, brokers=(*credentials.brokers, owner))
        node = Lab(build.find_tool("java"), class_path, agent=jar, frame=credentials.frame())
        try:
            for key in ("lab/patients", "labs/x", "team/data", "la/x", "data"):
                assert node.write(f"sealed://{key.replace('/', '+')}{tmp_path}/x", b"content") == {}
                broker = lab if key == "lab/patients" else home
                secret = broker.keyring.key(key).secret
                mine = InMemoryKeys(SealingKey(key, 1, secret))
                assert sealing.read_bytes(tmp_path / "x", keys=mine) == b"content"
        finally:
            node.close()
        asked = {each["key"] for each in lab.events("release") if each["decision"] == "released"}
        assert asked == {"lab/patients"}
        asked = {each["key"] for each in home.events("release") if each["decision"] == "released"}
        assert "lab/patients" not in asked


# -- the frame --------------------------------------------------------------------------------------


def _framed(content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    return len(body).to_bytes(4, "big") + body


def _changed(frame: bytes, **change: Any) -> bytes:
    body = json.loads(frame[4:]) | change
    return _framed({name: value for name, value in body.items() if value is not None})


def _with_owner(frame: bytes, *owners: str) -> bytes:
    (home,) = json.loads(frame[4:])["brokers"]
    return _changed(frame, brokers=[home, *(home | {"owner": owner} for owner in owners)])


_BAD: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda frame: b"",
    "a part of the length": lambda frame: frame[:3],
    "a part": lambda frame: frame[:-1],
    "too long a length": lambda frame: (64 * 1024 + 1).to_bytes(4, "big") + frame[4:],
    "a negative length": lambda frame: b"\xff\xff\xff\xff" + frame[4:],
    "no JSON": lambda frame: frame[:4] + b"x" * len(frame[4:]),
    "another version": lambda frame: _changed(frame, v=2),
    "another role than the command line's": lambda frame: _changed(frame, role="spark-worker"),
    "a role there is none of": lambda frame: _changed(frame, role="root"),
    "an unknown field": lambda frame: _changed(frame, more=1),
    "no secret": lambda frame: _changed(frame, cluster_secret=None),
    "a short secret": lambda frame: _changed(frame, cluster_secret="AAAA"),
    "a key that is none": lambda frame: _changed(frame, tls_private_key="AAAA"),
    "no brokers": lambda frame: _changed(frame, brokers=[]),
    "an owner called session": lambda frame: _with_owner(frame, "session"),
    "an owner that is no part of a name": lambda frame: _with_owner(frame, "a/b"),
    "an owner with a capital": lambda frame: _with_owner(frame, "Lab"),
    "an owner twice": lambda frame: _with_owner(frame, "lab", "lab"),
    "a broker without TLS": lambda frame: _changed(
        frame, brokers=[json.loads(frame[4:])["brokers"][0] | {"url": "http://127.0.0.1:1"}]
    ),
}


@pytest.mark.parametrize("how", _BAD)
def test_no_jvm_goes_on_with_bad_credentials(
    how: str, build: Any, jar: Path, class_path: str, world: Served, enrolment: Enrolment
) -> None:
    frame = credentials_of(world, enrolment).frame()
    command = [build.find_tool("java"), "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dsealbook.role={ROLE}"]
    command += [f"-javaagent:{jar}", "-cp", class_path, "sealbook.Lab"]
    done = subprocess.run(command, input=_BAD[how](frame), capture_output=True, timeout=100, check=False)
    assert done.returncode == 2, done
    assert done.stdout == b""
    sentence = done.stderr.decode()
    assert sentence.count("\n") == 1
    assert sentence.endswith(".\n")
    assert "Exception" not in sentence.replace("Spec", "").replace("InvalidKeyException", "")
    secrets = json.loads(frame[4:])
    for name in ("tls_private_key", "hpke_private_key", "cluster_secret"):
        assert secrets[name][:16] not in sentence
