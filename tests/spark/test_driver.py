"""What a driver does before any JVM is started: which settings and clusters it takes, and what it refuses."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker_service import CLUSTER, Served, served
from sealbook.errors import InputError, RefusedError
from sealbook.spark import face, interception, settings, xgboost_guard
from sealbook.spark.driver import Driver, Ended
from sealbook.spark.names import used_names
from sealbook.spark.profiles import Profile


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as broker:
        yield broker


@pytest.fixture
def master() -> Iterator[str]:
    """Something that listens where a master would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"spark://127.0.0.1:{server.getsockname()[1]}"


def driver_of(broker: Served, profile: Profile | None) -> Driver:
    def find(name: str) -> Profile | None:
        return profile if name else None

    return Driver(broker.attester(), find)


# -- settings ----------------------------------------------------------------------------------


@pytest.fixture
def local() -> Driver:
    return Driver(SimpleNamespace(), lambda name: None)  # type: ignore[arg-type]


def test_what_the_code_says_is_taken_and_what_protects_is_there_whatever_it_says(local: Driver) -> None:
    conf = local.configuration({"spark.app.name": "mine", "spark.sql.shuffle.partitions": "3"})
    settings.require(conf)
    assert conf["spark.app.name"] == "mine"
    assert conf["spark.sql.shuffle.partitions"] == "3"
    assert conf["spark.driver.host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spark.io.encryption.enabled", "false"),
        ("spark.ssl.rpc.enabled", "false"),
        ("spark.driver.extraJavaOptions", "-agentlib:jdwp"),
        ("spark.eventLog.dir", "/tmp/events"),
    ],
)
def test_a_setting_that_takes_a_protection_away_is_refused(key: str, value: str, local: Driver) -> None:
    with pytest.raises(RefusedError, match="This Spark session was not made: "):
        local.configuration({key: value})


@pytest.mark.parametrize("asked", ["local", "local[1]", "local[*]", "local[4,2]"])
def test_here_the_code_may_say_how_many_cores(asked: str, local: Driver) -> None:
    assert local.configuration({"spark.master": asked})["spark.master"] == asked


@pytest.mark.parametrize("asked", ["spark://203.0.113.1:7077", "yarn", "k8s://x", "local-cluster[2,1,1024]"])
def test_a_master_elsewhere_is_named_in_a_warning_and_not_gone_to(asked: str, local: Driver) -> None:
    with pytest.warns(UserWarning, match="`%scale` says where it runs"):
        assert local.configuration({"spark.master": asked})["spark.master"] == "local[*]"


@pytest.mark.parametrize("asked", ["local[1]", "local", ""])
def test_on_a_cluster_local_is_the_cluster(asked: str, broker: Served, master: str) -> None:
    driver = driver_of(broker, Profile(CLUSTER, master, broker.url, broker.ca))
    driver.switch(CLUSTER)
    assert driver.configuration({"spark.master": asked} if asked else {})["spark.master"] == master


# -- clusters ----------------------------------------------------------------------------------


def test_a_cluster_is_chosen_when_its_broker_admitted_this_driver(broker: Served, master: str) -> None:
    driver = driver_of(broker, Profile(CLUSTER, master, broker.url, broker.ca))
    assert driver.switch(CLUSTER).name == f"cluster {CLUSTER}"
    (node,) = driver.nodes()
    assert (node.role, node.hosts, node.label) == ("spark-driver", ("127.0.0.1",), "simulated")
    assert driver.switch(None).name == "local"
    assert driver.nodes() == ()


def test_a_cluster_whose_broker_refuses_is_not_chosen(broker: Served, master: str, tmp_path: Path) -> None:
    with served(tmp_path / "another-platform") as other:
        driver = driver_of(other, Profile(CLUSTER, master, broker.url, broker.ca))
        with pytest.raises(RefusedError, match=f"The broker of the cluster '{CLUSTER}'"):
            driver.switch(CLUSTER)
        assert driver.scale.name == "local"


def test_a_cluster_whose_master_does_not_answer_is_not_chosen(broker: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    driver = driver_of(broker, Profile(CLUSTER, f"spark://127.0.0.1:{port}", broker.url, broker.ca))
    with pytest.raises(RefusedError, match=r"The master .* does not answer"):
        driver.switch(CLUSTER)
    assert driver.scale.name == "local"
    assert broker.events("session") == []


def test_a_cluster_that_there_is_not_is_not_chosen(broker: Served) -> None:
    driver = driver_of(broker, None)
    with pytest.raises(InputError, match="no cluster 'nowhere'"):
        driver.switch("nowhere")


# -- what is left of a session -----------------------------------------------------------------


def test_what_is_left_of_a_session_says_why_it_ended_and_counts_as_nothing() -> None:
    left = Ended("It ended for this reason.")
    assert not left
    for use in (lambda: left.sc(), lambda: left.anything):
        with pytest.raises(RefusedError, match="for this reason"):
            use()
    assert not hasattr(left, "__len__")


# -- ways around -------------------------------------------------------------------------------


@pytest.fixture
def finder() -> Iterator[None]:
    """What a kernel installs, for the time of a test."""
    import sys

    found = interception._Finder()
    sys.meta_path.insert(0, found)
    kept = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(interception._REFUSED)
    }
    yield
    sys.meta_path.remove(found)
    sys.modules.update(kept)


def test_spark_connect_cannot_be_imported(finder: None) -> None:
    with pytest.raises(RefusedError, match="Spark Connect is not available"):
        importlib.import_module("pyspark.sql.connect.session")
    with pytest.raises(ImportError):
        importlib.import_module("pyspark.sql.connect")


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({"spark.remote": "sc://x"}, {}),
        ({"spark.api.mode": "Connect"}, {}),
        ({}, {"SPARK_REMOTE": "sc://x"}),
        ({}, {"SPARK_API_MODE": "connect"}),
        ({}, {"SPARK_CONNECT_MODE_ENABLED": "1"}),
    ],
)
def test_spark_connect_is_refused_however_it_is_asked_for(
    options: dict[str, str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(interception.ConnectRefusedError):
        interception._refuse_connect(options)


def test_what_is_not_spark_connect_is_let_be() -> None:
    interception._refuse_connect({"spark.api.mode": "classic", "spark.app.name": "connect"})


def test_what_the_host_says_to_pyspark_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    named = (
        "SPARK_REMOTE",
        "MASTER",
        "PYSPARK_SUBMIT_ARGS",
        "SPARK_CONF_DIR",
        "HADOOP_CONF_DIR",
        "HIVE_HOME",
    )
    for name in named:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SEALBOOK_KEEPS", "x")
    face._forget_host_settings()
    assert not [name for name in named if name in os.environ]
    assert os.environ["SEALBOOK_KEEPS"] == "x"


@pytest.mark.parametrize(
    ("code", "used"),
    [
        ("spark.range(1)", ["spark"]),
        ("print(sc, spark)", ["spark", "sc"]),
        ("spark = make()", []),
        ("spark = make()\nsc.version", []),
        ("from x import spark\nsc", []),
        ("def f():\n    return spark", []),
        ("'spark'", []),
        ("not python", []),
    ],
)
def test_which_names_a_cell_uses_without_making_them_itself(code: str, used: list[str]) -> None:
    assert used_names(code) == used


# -- xgboost -----------------------------------------------------------------------------------


class Estimator:
    """As much of xgboost's estimator as the guard knows."""

    num_workers = "num_workers"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def getOrDefault(self, name: str) -> int:
        return self.workers

    def _fit(self, dataset: Any) -> Any:
        return self._get_tracker_args()

    def _get_tracker_args(self) -> Any:
        raise AssertionError("a tracker was started")


def test_one_worker_of_xgboost_has_no_tracker_and_more_are_refused() -> None:
    guarded = type("Guarded", (Estimator,), {})
    module: Any = SimpleNamespace(_SparkXGBEstimator=guarded, CommunicatorContext=object)
    xgboost_guard.guard(module)
    assert guarded(1)._fit(None) == (True, {})
    assert module.CommunicatorContext is contextlib.nullcontext
    with pytest.raises(RefusedError, match="its 2 workers would exchange gradients"):
        guarded(2)._fit(None)
