"""Certificates that end while jobs run: of nodes that renew them, and of one that cannot."""

from __future__ import annotations

import os
import signal

import pytest
from spark_user import serving
from test_cluster import NAME, Trial, executors, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]


@pytest.fixture
def trial(user, monkeypatch):
    """A cluster whose nodes have certificates for a minute."""
    from sealbook.cli.cluster import make_policy

    monkeypatch.setenv("SEALBOOK_HOME", str(user.home))
    make_policy()
    assert user.run("broker", "cluster", "add", NAME, "--policy", "simulated").status == 0
    with serving(user, "--certificate-minutes", "1") as broker:
        trial = Trial(user)
        trial.up("--broker", broker["url"], "--ca", broker["ca"])
        yield trial
        trial.down()


def test_a_node_whose_certificate_expires_is_dropped_and_its_work_reruns_while_others_renew_theirs(trial):
    flag = trial.work / "expiry"
    # Spark itself would wait ten minutes for an executor that is silent.
    patient = {"spark.network.timeout": "600s", "spark.executor.heartbeatInterval": "300s"}
    with trial.job(patient, name="slow", seconds=160, tasks=16, flag=str(flag)) as program:
        started(flag, 2)
        # It can renew nothing, and ends nothing.
        os.kill(int(executors(trial)[0]), signal.SIGSTOP)
        assert trial.result(program, timeout=300) == sum(range(16))
    assert all(process["alive"] for process in trial.status()["processes"])
