"""The same cells here and on a real cluster: where they run, what they give, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_of_a_test import Notebook
from scaled import KEY, NAME, ScaledUser

from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over
from sealbook.jupyter.server.where import where

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]


@pytest.fixture(scope="module")
def notebook(
    here: ScaledUser, kernel_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """A kernel."""
    started = Notebook(kernel_name, tmp_path_factory.mktemp("notebook"))
    yield started
    started.close()


@pytest.fixture
def on_cluster(notebook: Notebook) -> Notebook:
    """The kernel on the cluster, whatever a test before chose."""
    printed, error = notebook.run(f"%scale cluster {NAME}")
    assert not error
    assert f"Spark runs on the cluster '{NAME}'" in printed
    return notebook


def none_left(found: Callable[[], object], seconds: float = 60) -> bool:
    """Whether what is looked for is gone within a generous time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not found():
            return True
        time.sleep(0.2)
    return False


# -- where code runs ---------------------------------------------------------------------------


def test_scale_shows_every_node_with_its_evidence(on_cluster: Notebook) -> None:
    assert on_cluster.value("spark.range(1000).selectExpr('sum(id)').first()[0]") == "499500"
    printed, error = on_cluster.run("%scale")
    assert not error
    lines = printed.strip().splitlines()
    assert lines[0].startswith(f"Spark runs on the cluster '{NAME}' (spark://127.0.0.1:")
    nodes = [line.split()[0] for line in lines[2:]]
    assert set(nodes) == {"driver", "executor", "master", "worker"}
    assert nodes.count("worker") == 2
    for line in lines[2:]:
        assert "simulated: no hardware protects it" in line
        assert "127.0.0.1" in line


def test_the_users_side_knows_where_code_runs_and_every_node_there(on_cluster: Notebook) -> None:
    """As the panel in JupyterLab shows it."""
    assert on_cluster.value("spark.range(10).count()") == "10"
    provisioner = on_cluster.manager.provisioner
    found = where(provisioner, provisioner.trail.since())
    assert (found["where"], found["name"], found["started"], found["note"]) == ("cluster", NAME, True, "")
    assert NAME in {choice["name"] for choice in found["choices"]}
    roles = [node["role"] for node in found["nodes"]]
    assert set(roles) >= {"master", "worker", "driver"}
    assert {node["label"] for node in found["nodes"]} == {"simulated"}
    _, error = on_cluster.run("%scale local")
    assert not error
    here = where(provisioner, provisioner.trail.since())
    assert (here["where"], here["nodes"]) == ("local", [])


WAYS = (
    "SparkSession.builder.getOrCreate().sparkContext",
    "SparkSession.builder.master('local[*]').appName('mine').getOrCreate().sparkContext",
    "SparkContext('local[1]')",
    "SparkContext(conf=SparkConf().setMaster('local').setAppName('a'))",
    "SparkContext.getOrCreate(SparkConf().setMaster('local[2]'))",
    "SparkSession.builder.config(conf=SparkConf().setMaster('local[7]')).create().sparkContext",
    "SQLContext(SparkContext('local')).sparkSession.sparkContext",
    "SQLContext.getOrCreate(SparkContext.getOrCreate()).sparkSession.sparkContext",
    "ps.range(3)._internal.spark_frame.sparkSession.sparkContext",
)


def test_code_that_names_another_place_still_runs_on_the_cluster(on_cluster: Notebook) -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from pyspark import SparkConf, SparkContext\nfrom pyspark.sql import SparkSession, SQLContext\n"
        "import pyspark.pandas as ps\n"
    )
    for made in WAYS:
        ran = on_cluster.value("made.master.startswith('spark://127.0.0.1:')", f"{code}made = {made}")
        assert ran == "True", made
        assert on_cluster.value("made is sc") == "True", made
    assert on_cluster.value("made.parallelize(range(9), 3).sum()") == "36"


@pytest.mark.parametrize("made", [WAYS[1], WAYS[2]])
def test_code_that_stops_its_session_and_names_another_place_comes_back_to_the_cluster(
    made: str, on_cluster: Notebook
) -> None:
    code = (
        "from pyspark import SparkContext\nfrom pyspark.sql import SparkSession\n"
        f"SparkSession.builder.getOrCreate().stop()\nmade = {made}"
    )
    assert on_cluster.value("made.master.startswith('spark://127.0.0.1:')", code) == "True"
    assert on_cluster.value("made is sc, made.parallelize(range(9), 3).sum()") == "True 36"


def test_spark_connect_is_refused_there_too(on_cluster: Notebook) -> None:
    _, error = on_cluster.run(
        "from pyspark.sql import SparkSession\nSparkSession.builder.remote('sc://elsewhere').getOrCreate()"
    )
    assert error.startswith("ConnectRefusedError: Spark Connect is not available in a sealbook kernel")


# -- the same results --------------------------------------------------------------------------

WORK = """
import pandas as pd
from pyspark.sql import functions as F

root = {root!r}
rows = [(i, f"name {{i % 7}}", i * 0.25) for i in range(500)]
people = spark.createDataFrame(rows, "id long, name string, x double")
people.repartition(4, "id").write.parquet(root + "/people")
people.write.option("header", True).csv(root + "/csv")
people.write.json(root + "/json")
people.write.orc(root + "/orc")
people.select("name").write.text(root + "/text")
table = spark.read.parquet(root + "/people")
twice = F.udf(lambda x: x * 2, "double")

@F.pandas_udf("double")
def half(x: pd.Series) -> pd.Series:
    return x / 2

def lengths(frames):
    for frame in frames:
        yield pd.DataFrame({{"length": frame["name"].str.len()}})

table.createOrReplaceTempView("people")
ranked = "select name, row_number() over (partition by name order by id desc) n, id from people order by 1, 2"
named = spark.read.option("header", True).csv(root + "/csv")
named = named.selectExpr("cast(id as long) id", "name as other")
results = [
    table.groupBy("name").agg(F.count("*"), F.sum("x"), F.min("id")).orderBy("name").collect(),
    table.select("id", twice("x"), half("x")).orderBy("id").limit(20).collect(),
    table.mapInPandas(lengths, "length long").agg(F.sum("length")).first()[0],
    spark.sql(ranked).limit(9).collect(),
    sc.parallelize(range(100), 4).map(lambda i: (i % 3, i)).reduceByKey(lambda a, b: a + b).collectAsMap(),
    table.join(named, "id").where("name = other").count(),
    table.toPandas()["x"].sum(),
    spark.read.json(root + "/json").count(),
    spark.read.orc(root + "/orc").count(),
    spark.read.text(root + "/text").distinct().count(),
]
"""


def test_the_same_cell_gives_the_same_here_and_there_and_each_reads_what_the_other_sealed(
    on_cluster: Notebook, tmp_path: Path
) -> None:
    there = on_cluster.value("results", WORK.format(root=f"sealed://{KEY}{tmp_path}/there"), timeout=300)
    printed, error = on_cluster.run("%scale local")
    assert not error
    assert "run the cells that make them again" in printed
    local = on_cluster.value("results", WORK.format(root=f"sealed://{KEY}{tmp_path}/local"), timeout=300)
    assert local == there
    assert "name 3" in there
    read = f"sorted(map(tuple, spark.read.parquet('sealed://{tmp_path}/there/people').collect()))[:3]"
    first = on_cluster.value(read)
    on_cluster.run(f"%scale cluster {NAME}")
    assert on_cluster.value(read) == first
    assert on_cluster.value(read.replace("there/", "local/")) == first
    parts = [path for path in tmp_path.rglob("part-*") if path.is_file()]
    assert len(parts) >= 20
    for path in parts:
        assert path.read_bytes().startswith(b"SEALBOOK"), path
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"name 3" not in path.read_bytes(), path


def test_a_table_of_this_kernels_own_session_is_not_read_there_and_why_is_said(
    on_cluster: Notebook, tmp_path: Path
) -> None:
    on_cluster.run("%scale local")
    _, error = on_cluster.run(f"spark.range(5).write.parquet('sealed://{tmp_path}/t')")
    assert not error
    assert on_cluster.value(f"spark.read.parquet('sealed://{tmp_path}/t').count()") == "5"
    on_cluster.run(f"%scale cluster {NAME}")
    _, error = on_cluster.run(f"spark.read.parquet('sealed://{tmp_path}/t').count()")
    assert "Keys named session/" in error
    assert "sealbook keys create" in error


# -- a change of place -------------------------------------------------------------------------


def test_what_belongs_to_the_session_before_says_so_in_one_sentence(on_cluster: Notebook) -> None:
    on_cluster.run(
        "frame = spark.range(5)\nframe.createOrReplaceTempView('five')\nold = spark\nframe.count()"
    )
    printed, error = on_cluster.run("%scale local")
    assert not error
    assert "temporary views and cached tables" in printed
    for use in ("frame.count()", "old.range(3).count()", "old.sql('select * from five')"):
        _, error = on_cluster.run(use)
        said = f"RefusedError: This belongs to the Spark session on cluster {NAME} that ended"
        assert error.startswith(said), use
        assert "\n" not in error
    assert on_cluster.value("spark.range(4).count(), spark.sparkContext.master") == "4 local[*]"
    assert on_cluster.value("spark is not old") == "True"


# -- progress and interrupts -------------------------------------------------------------------

SLEEP = (
    "import time\nprint(sc.parallelize(range({tasks}), {tasks}).map(lambda i: time.sleep({each}) or i).sum())"
)


def test_a_job_on_the_cluster_shows_its_tasks_under_the_cell_and_leaves_one_line(
    on_cluster: Notebook,
) -> None:
    on_cluster.run("spark.range(1).count()")
    messages = on_cluster.messages(SLEEP.format(tasks=8, each=0.6))
    shown = [m["content"]["data"] for m in messages if m["msg_type"] == "display_data"]
    updates = [m["content"]["data"] for m in messages if m["msg_type"] == "update_display_data"]
    assert len(shown) == 1
    assert f"Spark (cluster {NAME}): [" in shown[0]["text/plain"]
    assert any("of 8 tasks" in each["text/plain"] for each in shown + updates)
    assert updates[-1]["text/plain"].startswith(f"Spark (cluster {NAME}): 1 job in ")
    assert "progress" not in updates[-1]["text/html"]


def test_an_interrupted_cell_ends_its_jobs_on_the_cluster_and_the_kernel_stays_usable(
    on_cluster: Notebook, tmp_path: Path
) -> None:
    on_cluster.run("spark.range(1).count()")
    code = (
        "def work(i):\n"
        "    import time, pathlib\n"
        f"    pathlib.Path({str(tmp_path)!r}, str(i)).touch()\n"
        "    time.sleep(100)\n"
        "sc.parallelize(range(4), 4).map(work).count()"
    )
    interrupted: list[float] = []

    def during(message: dict[str, Any]) -> None:
        if message["msg_type"] in ("display_data", "update_display_data") and not interrupted:
            assert none_left(lambda: len(list(tmp_path.iterdir())) < 1), "no task began"
            interrupted.append(time.monotonic())
            on_cluster.manager.interrupt_kernel()

    messages = on_cluster.messages(code, during=during)
    assert [m["content"]["ename"] for m in messages if m["msg_type"] == "error"] == ["KeyboardInterrupt"]
    assert none_left(lambda: on_cluster.value("sc.statusTracker().getActiveJobsIds()") != "[]", 20)
    # Its tasks have ended too: otherwise the executors would be busy for 100 seconds more.
    assert on_cluster.value("sc.parallelize(range(6), 2).sum()", timeout=60) == "15"
    assert len(list(tmp_path.iterdir())) <= 2


# -- how it ends -------------------------------------------------------------------------------


def test_a_drivers_jvm_that_is_killed_during_a_job_is_one_sentence_and_the_next_use_starts_another(
    on_cluster: Notebook,
) -> None:
    java = int(on_cluster.value("get_ipython().kernel.spark.process", "spark.range(1).count()"))
    killed: list[int] = []

    def during(message: dict[str, Any]) -> None:
        if message["msg_type"] == "display_data" and not killed:
            killed.append(java)
            os.kill(java, signal.SIGKILL)

    messages = on_cluster.messages(SLEEP.format(tasks=4, each=60), during=during)
    errors = [m["content"] for m in messages if m["msg_type"] == "error"]
    assert [error["ename"] for error in errors] == ["RefusedError"]
    assert errors[0]["evalue"].startswith("Spark's Java process has ended")
    assert "\n" not in errors[0]["evalue"]
    texts = [str(m["content"].get("text")) for m in messages]
    assert [text for text in texts if "Traceback" in text] == []
    assert on_cluster.value("spark.range(50).count()") == "50"
    assert int(on_cluster.value("get_ipython().kernel.spark.process")) != java


def test_a_killed_kernel_takes_its_java_process_and_its_executors_with_it(
    here: ScaledUser, kernel_name: str, tmp_path: Path, on_cluster: Notebook
) -> None:
    on_cluster.run("%scale local")  # so that the workers are free
    assert none_left(here.executors)
    notebook = Notebook(kernel_name, tmp_path)
    try:
        notebook.run(f"%scale cluster {NAME}")
        assert notebook.value("spark.range(10).count()") == "10"
        java = int(notebook.value("get_ipython().kernel.spark.process"))
        kernel = int(notebook.value("__import__('os').getpid()"))
        assert here.executors()
        os.kill(kernel, signal.SIGKILL)
        assert none_left(lambda: psutil.pid_exists(java), 30)
        assert none_left(here.executors)
    finally:
        notebook.close()


# -- batch -------------------------------------------------------------------------------------


def book(directory: Path, kernel_name: str) -> Path:
    """A notebook that knows nothing of clusters."""
    cells = [
        "from pyspark.sql import SparkSession\nspark = SparkSession.builder.master('local[2]').getOrCreate()",
        "import time\nspark.sparkContext.parallelize(range(6), 6).map(lambda i: time.sleep(0.5) or i).sum()",
        "print('ran on', spark.sparkContext.master)",
    ]
    written = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    written.metadata["kernelspec"] = {"name": kernel_name, "display_name": "x", "language": "python"}
    nbformat.write(written, directory / "in.ipynb")
    return directory / "in.ipynb"


def batch(program: list[str], directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a notebook as a program of its own."""
    reader, named = hand_over("correct horse battery")
    try:
        return subprocess.run(
            [sys.executable, "-m", *program],
            env=os.environ | {DESCRIPTOR_VARIABLE: named} | environment,
            pass_fds=[reader],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        os.close(reader)


PROGRAMS = {
    "papermill": ["papermill", "in.ipynb", "out.ipynb", "--no-progress-bar"],
    "papermill-attested": ["papermill", "in.ipynb", "out.ipynb", "--engine", "sealbook"],
    "nbclient": ["jupyter", "execute", "in.ipynb", "--output=out.ipynb"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_notebook_runs_on_the_cluster_in_batch_with_no_cell_changed(
    program: str, here: ScaledUser, kernel_name: str, tmp_path: Path
) -> None:
    before = [cell.source for cell in nbformat.read(book(tmp_path, kernel_name), as_version=4).cells]
    done = batch(PROGRAMS[program], tmp_path, SEALBOOK_CLUSTER=NAME)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    nbformat.validate(executed)
    assert [cell.source for cell in executed.cells] == before
    assert "ran on spark://127.0.0.1:" in str(executed.cells[2].outputs)
    job = executed.cells[1].outputs
    assert [output.output_type for output in job].count("execute_result") == 1
    # Of the bar, what is left is one line that says what was done.
    shown = [output for output in job if output.output_type == "display_data"]
    assert len(shown) == 1
    assert shown[0].data["text/plain"].startswith(f"Spark (cluster {NAME}): 1 job in ")
    assert "progress" not in shown[0].data["text/html"]


def test_a_kernels_own_configuration_names_the_cluster_too_and_the_variable_comes_first(
    here: ScaledUser, kernel_name: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    installed = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / kernel_name / "kernel.json"
    specification = json.loads(installed.read_text())
    specification["metadata"]["kernel_provisioner"]["config"]["cluster"] = NAME
    folder = data / "kernels" / "scaled"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(specification))
    book(tmp_path, "scaled")
    done = batch(PROGRAMS["papermill"], tmp_path, JUPYTER_PATH=str(data))
    assert done.returncode == 0, done.stderr
    assert "ran on spark://127.0.0.1:" in (tmp_path / "out.ipynb").read_text()
    done = batch(PROGRAMS["papermill"], tmp_path, JUPYTER_PATH=str(data), SEALBOOK_CLUSTER="absent")
    assert done.returncode != 0
    assert "no cluster 'absent'" in done.stderr
