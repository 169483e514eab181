"""Two data owners with one broker each in one job: a key of each comes from its owner's broker alone."""

from __future__ import annotations

import json
import shutil

import pytest
from spark_user import serving, temporary_user
from test_cluster import NAME, Trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]


@pytest.fixture
def hospital(user, tmp_path, monkeypatch):
    """Another owner, whose policy admits the same nodes; and the address of their broker."""
    from sealbook.cli.cluster import make_policy

    monkeypatch.setenv("SEALBOOK_HOME", str(user.home))
    make_policy()
    with temporary_user(tmp_path / "hospital") as hospital:
        # The simulated platform is the machine, which is the same; and both trust its root.
        for part in ("policies", "simulated-platform"):
            shutil.copytree(user.home / part, hospital.home / part)
        assert hospital.run("keys", "create", "hospital/data").status == 0
        # Each owner names the other: the home its guests' keys, the hospital whose cluster may have them.
        assert user.run("broker", "cluster", "add", NAME, "--policy", "simulated").status == 0
        home = user.home / "broker" / "ca.pem"
        added = hospital.run("broker", "cluster", "add", NAME, "--policy", "simulated", "--home-ca", home)
        assert added.status == 0, added
        with serving(hospital) as hospital.broker:
            yield hospital


def released(user, key: str) -> list[str]:
    """The sessions that a key was released to."""
    entries = [json.loads(line) for line in (user.home / "audit.jsonl").read_text().splitlines()]
    return [e["session"] for e in entries if e["event"] == "release" and e["key"] == key]


def test_a_table_under_another_owners_key_is_written_and_read_with_that_owners_consent(user, hospital):
    trial = Trial(user)
    where = hospital.broker
    trial.up("--workers", 1, "--owner", f"hospital={where['url']}", "--owner-ca", f"hospital={where['ca']}")
    try:
        place = trial.work / "table"
        arguments = {"marker": "MARKERqzx8", "path": f"sealed://hospital+data{place}"}
        with trial.job(name="written", **arguments) as program:
            assert trial.result(program) == 100
        files = list(place.glob("part-*"))
        assert files
        assert not any(b"MARKERqzx8" in file.read_bytes() for file in files)
        # The driver's and the executor's JVM asked the hospital, and nobody asked the home broker.
        assert len(set(released(hospital, "hospital/data"))) >= 2
        assert released(user, "hospital/data") == []
    finally:
        trial.down()
