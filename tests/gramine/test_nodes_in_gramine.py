"""A real cluster whose master, workers and executors run in a real Gramine, without SGX.

Nothing is attested there: the nodes say so, and only a policy that names gramine-direct admits them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "spark"))
from spark_user import User, temporary_user

from sealbook import sealing, spark_files
from sealbook.image.build import Recipe, build
from sealbook.spark.python_functions import SENTENCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("gramine")]

SPARK_TESTS = Path(__file__).parents[1] / "spark"
NAME = "trial"
MARKER = b"text-"

#: The same job with Spark as it comes.
PLAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from jobs import sealed_sums
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.driver.host", "127.0.0.1")
spark = spark.config("spark.ui.enabled", "false").getOrCreate()
print(json.dumps(sealed_sums(spark, sys.argv[2], write=True)))
spark.stop()
"""


class Cluster:
    """A cluster of nodes in Gramine, its user, and drivers for it."""

    def __init__(self, user: User, directory: Path, tables: Path) -> None:
        self.user = user
        self.tables = tables
        self.directory = directory
        self.image = directory / "image"
        self.ports = [self._free(), self._free()]

    @staticmethod
    def _free() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    def sealbook(self, *arguments: object) -> str:
        outcome = self.user.run(*arguments, timeout=600)
        assert outcome.status == 0, outcome
        return outcome.out

    def up(self, **changed: object) -> object:
        options = {
            "--port": self.ports[0],
            "--broker-port": self.ports[1],
            "--policy": "gramine-direct",
            "--image": self.image,
            "--tee": "gramine-direct",
            "--workers": 1,
            "--memory": "600m",
            "--timeout": 500,
        } | changed
        return self.user.run(
            "cluster", "up", NAME, *(part for pair in options.items() for part in pair), timeout=600
        )

    def job(self, **arguments: object) -> subprocess.CompletedProcess[str]:
        told = self.directory / "told.json"
        told.write_text(
            json.dumps(
                {
                    "profile": NAME,
                    "host": "127.0.0.1",
                    "directory": str(self.directory),
                    "job": str(SPARK_TESTS / "jobs.py"),
                    "arguments": arguments,
                    "unattested": True,
                    # An executor there takes its time.
                    "settings": {"spark.network.timeout": "600s"},
                }
            )
        )
        return subprocess.run(
            [sys.executable, "-I", "-B", str(SPARK_TESTS / "driver_program.py"), str(told)],
            env=os.environ | self.user.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def nodes(self) -> list[dict[str, object]]:
        return json.loads(self.sealbook("cluster", "status", NAME, "--json"))["nodes"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def cluster(gramine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    spark_files.jar()
    directory = tmp_path_factory.mktemp("user")
    with (
        temporary_user(directory / "home") as user,
        # In an image, tables lie nowhere below /tmp, which is memory there.
        tempfile.TemporaryDirectory(prefix="sb-", dir="/var/tmp") as tables,
    ):
        made = Cluster(user, directory, Path(tables))
        build(Recipe(layers=("kernel",), role="spark-worker", tables=tables), made.image)
        made.sealbook("policy", "init", "gramine-direct", "--tee", "gramine-direct")
        made.sealbook("keys", "create", "data", "--guard", "gramine-direct")
        up = made.up()
        assert up.status == 0, up
        yield made
        made.sealbook("cluster", "down", NAME)
        assert user.left() == []


def test_nodes_say_that_they_are_not_attested(cluster: Cluster) -> None:
    nodes = cluster.nodes()
    assert {node["role"] for node in nodes} >= {"spark-master", "spark-worker"}
    for node in nodes:
        assert node["measurement"] == ""
        assert "not attested" in str(node["label"]).lower()


def test_sql_on_sealed_parquet_in_gramine_gives_what_plain_spark_gives(cluster: Cluster) -> None:
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN, str(SPARK_TESTS), str(cluster.directory / "plain")],
        env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert plain.returncode == 0, plain.stderr[-2000:]
    sealed = cluster.job(name="sealed_sums", table=f"sealed://data{cluster.tables}/t", write=True)
    assert sealed.returncode == 0, sealed.stderr[-3000:]
    assert json.loads(sealed.stdout) == json.loads(plain.stdout)
    files = [path for path in (cluster.tables / "t").rglob("*.parquet") if path.is_file()]
    assert files
    assert not any(MARKER in path.read_bytes() for path in files)
    assert [sealing.inspect(path).sealer for path in files] == [{"attested": False}] * len(files)
    assert {"spark-executor", "spark-driver"} <= {
        str(entry["role"])
        for line in (cluster.user.home / "audit.jsonl").read_text().splitlines()
        if (entry := json.loads(line)).get("event") == "certificate"
    }


def test_a_job_with_a_python_function_is_refused_in_one_sentence(cluster: Cluster) -> None:
    refused = cluster.job(name="python_function")
    assert refused.returncode != 0
    assert SENTENCE in refused.stderr


def test_a_policy_that_asks_for_evidence_admits_no_such_node(cluster: Cluster) -> None:
    cluster.sealbook("cluster", "down", NAME)
    cluster.sealbook("policy", "init")
    refused = cluster.up(**{"--policy": "simulated"})
    assert refused.status == 2, refused
    # Both ask at the same time, and the first refusal ends it all.
    assert re.search("did not admit this spark-(master|worker): .*not attested", refused.err), refused
    assert "Traceback" not in refused.err
    again = cluster.up()
    assert again.status == 0, again
