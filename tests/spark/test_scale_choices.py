"""``%scale`` without a cluster: what it shows, and the sentences about clusters that cannot be used."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_of_a_test import Notebook

from broker_service import CLUSTER, served
from sealbook.spark import profiles
from sealbook.spark.profiles import Profile


@pytest.fixture(scope="module")
def notebook(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    started = Notebook(kernel_name, tmp_path_factory.mktemp("notebook"))
    yield started
    started.close()


def closed() -> int:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Profile]:
    """A cluster whose broker knows another simulated machine than the kernel's, and admits no evidence of it.

    Something listens where its master would be.
    """
    with served(tmp_path) as broker, socket.create_server(("127.0.0.1", 0)) as master:
        profile = Profile(CLUSTER, f"spark://127.0.0.1:{master.getsockname()[1]}", broker.url, broker.ca)
        profiles.save(profile)
        yield profile
        profiles.remove(CLUSTER)


def test_scale_says_that_spark_runs_here(notebook: Notebook) -> None:
    printed, error = notebook.run("%scale")
    assert not error
    cores = len(os.sched_getaffinity(0))
    assert printed.strip() == f"Spark runs in this kernel, on {cores} core{'' if cores == 1 else 's'}."
    assert notebook.run("%scale local")[0].strip() == printed.strip()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cluster nowhere", "no cluster 'nowhere'"),
        ("cluster", "Say which cluster: `%scale cluster NAME`."),
        ("cluster ../x", "is not a name for a cluster"),
        ("local here", "takes no name"),
        ("elsewhere", "invalid choice"),
        ("cluster a b", "Unrecognized"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence_and_changes_nothing(
    line: str, said: str, notebook: Notebook
) -> None:
    printed, error = notebook.run(f"%scale {line}")
    assert said in printed + error
    assert "Traceback" not in printed + error
    assert len((printed + error).strip().splitlines()) == 1
    assert "in this kernel" in notebook.run("%scale")[0]


def test_a_cluster_whose_broker_does_not_admit_the_kernel_is_one_sentence(
    strict: Profile, notebook: Notebook
) -> None:
    printed, error = notebook.run(f"%scale cluster {CLUSTER}")
    assert f"The broker of the cluster '{CLUSTER}' at {strict.broker} did not admit this" in error
    assert len((printed + error).strip().splitlines()) == 1
    assert "in this kernel" in notebook.run("%scale")[0]


def test_a_cluster_whose_master_is_down_is_one_sentence(strict: Profile, notebook: Notebook) -> None:
    profiles.save(Profile(CLUSTER, f"spark://127.0.0.1:{closed()}", strict.broker, strict.ca))
    printed, error = notebook.run(f"%scale cluster {CLUSTER}")
    assert "does not answer (Connection refused)" in error
    assert len((printed + error).strip().splitlines()) == 1


def test_a_cluster_whose_broker_is_down_is_one_sentence(strict: Profile, notebook: Notebook) -> None:
    profiles.save(Profile(CLUSTER, strict.master, f"https://127.0.0.1:{closed()}", strict.ca))
    printed, error = notebook.run(f"%scale cluster {CLUSTER}")
    assert "does not answer" in error
    assert "did not admit" not in error
    assert len((printed + error).strip().splitlines()) == 1


def test_a_cluster_to_begin_with_that_cannot_be_used_is_said_where_spark_is_named_and_not_before(
    strict: Profile, kernel_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the code does not run locally instead."""
    monkeypatch.setenv("SEALBOOK_CLUSTER", CLUSTER)
    notebook = Notebook(kernel_name, tmp_path)
    try:
        assert notebook.value("6 * 7") == "42"
        _, error = notebook.run("spark.range(3).count()")
        assert "did not admit this" in error
        assert "\n" not in error
        _, error = notebook.run("from pyspark import SparkContext\nSparkContext('local[1]')")
        assert "did not admit this" in error
        profiles.remove(CLUSTER)
        printed, error = notebook.run("%scale local")
        assert "in this kernel" in printed, error
        assert notebook.value("spark.range(3).count()") == "3"
    finally:
        notebook.close()
