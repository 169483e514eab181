"""Spark in the real kernel: there when it is named, the one session for whatever code asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_of_a_test import Notebook


@pytest.fixture(scope="module")
def notebook(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    started = Notebook(kernel_name, tmp_path_factory.mktemp("notebook"))
    yield started
    started.close()


@pytest.fixture
def anew(notebook: Notebook) -> Notebook:
    """The kernel with no session made yet."""
    printed, error = notebook.run(
        "%reset -f\n"
        "import os, sys\n"
        "for name in ('SPARK_REMOTE', 'SPARK_API_MODE'): os.environ.pop(name, None)\n"
        "if 'pyspark' in sys.modules:\n"
        "    from pyspark import SparkContext\n"
        "    if SparkContext._active_spark_context: SparkContext._active_spark_context.stop()\n"
        "%reset -f"
    )
    assert not error, printed
    return notebook


# -- when nothing asks for it ------------------------------------------------------------------


def test_a_kernel_that_names_no_spark_loads_nothing_and_starts_no_java(
    kernel_name: str, tmp_path: Path
) -> None:
    notebook = Notebook(kernel_name, tmp_path)
    try:
        loaded = "[m for m in __import__('sys').modules if m.split('.')[0] in ('pyspark', 'py4j')]"
        assert notebook.value(loaded, "x = 1") == "[]"
        assert notebook.value("'sealbook.spark.driver' in __import__('sys').modules") == "False"
        assert notebook.value("len(__import__('psutil').Process().children(recursive=True))") == "0"
    finally:
        notebook.close()


def test_the_names_are_offered_and_not_listed_as_the_users_own(notebook: Notebook) -> None:
    reply = notebook.client.complete("spar", 4, reply=True, timeout=60)
    assert "spark" in reply["content"]["matches"]
    printed, _ = notebook.run("%reset -f\nmine = 1\n%who")
    assert "mine" in printed
    assert "spark" not in printed


# -- one session, whoever asks -----------------------------------------------------------------


def test_spark_exists_as_soon_as_it_is_named(anew: Notebook) -> None:
    assert anew.value("spark.range(10).count(), type(spark).__name__, sc is spark.sparkContext") == (
        "10 SparkSession True"
    )


@pytest.mark.parametrize(
    "made",
    [
        "SparkSession.builder.getOrCreate()",
        "SparkSession.builder.master('local[*]').getOrCreate()",
        "SparkSession.builder.appName('mine').config('spark.sql.shuffle.partitions', '3').getOrCreate()",
        "SparkSession(SparkContext('local[1]'))",
        "SparkSession(SparkContext(conf=SparkConf().setMaster('local').setAppName('a')))",
        "SparkSession(SparkContext.getOrCreate(SparkConf().setMaster('local')))",
        "SparkSession.builder.config(conf=SparkConf().setMaster('local[7]')).getOrCreate()",
        "SparkSession.builder.create()",
    ],
)
def test_every_way_to_a_session_leads_to_the_same_context(made: str, anew: Notebook) -> None:
    before = (
        f"from pyspark import SparkConf, SparkContext\nfrom pyspark.sql import SparkSession\nmade = {made}"
    )
    assert anew.value("made.sparkContext is sc, made.range(5).count()", before) == "True 5"
    # And once more, where there is one already.
    assert anew.value(f"({made}).sparkContext is sc", before) == "True"


def test_code_that_stops_its_session_gets_another_at_the_same_place(anew: Notebook) -> None:
    code = "from pyspark import SparkContext\nspark.stop()\nagain = SparkContext('local[1]', 'again')"
    assert anew.value("again.parallelize(range(4)).sum()", code) == "6"
    assert anew.value("sc is again, spark.range(3).count()") == "True 3"
    anew.run("spark.stop()")
    assert anew.value("spark.range(2).count()") == "2"


def test_a_name_that_is_assigned_is_the_users(anew: Notebook) -> None:
    assert anew.value("spark", "spark = 'mine'") == "mine"
    assert anew.value("spark") == "mine"
    anew.run("del spark")
    assert anew.value("spark.range(1).count()") == "1"


def test_a_cell_that_makes_its_own_session_chooses_its_settings(anew: Notebook) -> None:
    code = (
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.appName('chosen').config('spark.default.parallelism', 7).getOrCreate()"
    )
    assert anew.value("spark.sparkContext.appName, sc.defaultParallelism", code) == "chosen 7"


def test_a_jvm_that_was_killed_is_said_and_the_next_cell_has_another(anew: Notebook) -> None:
    anew.value(
        "spark.range(2).count()", "import os, signal\nfrom pyspark.sql import SparkSession\nold = spark"
    )
    code = "os.kill(get_ipython().kernel.spark.process, signal.SIGKILL)\nold.range(3).count()"
    _, error = anew.run(code)
    assert error.startswith("RefusedError: Spark's Java process has ended")
    assert "\n" not in error
    assert anew.value("spark.range(4).count(), sc.parallelize(range(3)).sum()") == "4 3"
    assert anew.value("SparkSession.builder.getOrCreate() is not old") == "True"
    _, error = anew.run("old.range(3).count()")
    assert error.startswith("RefusedError: ")


def test_the_stand_in_works_where_code_gets_hold_of_it(anew: Notebook) -> None:
    code = "stand_in = get_ipython().user_ns['spa' + 'rk']\nfrom pyspark.sql import SparkSession"
    assert anew.value("isinstance(stand_in, SparkSession)", code) == "True"
    assert anew.value("stand_in.range(6).count()") == "6"
    assert anew.value("(lambda: spark.range(3).count())()") == "3"


def test_settings_of_memory_reach_the_jvm_that_is_not_started_yet(kernel_name: str, tmp_path: Path) -> None:
    notebook = Notebook(kernel_name, tmp_path)
    try:
        code = (
            "from pyspark.sql import SparkSession\n"
            "s = SparkSession.builder.config('spark.driver.memory', '700m').getOrCreate()\n"
            "heap = s._jvm.java.lang.Runtime.getRuntime().maxMemory() >> 20"
        )
        assert 600 <= int(notebook.value("heap", code)) <= 700
    finally:
        notebook.close()


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("'spark.io.encryption.enabled', 'false'", "in clear"),
        ("'spark.ssl.rpc.enabled', 'false'", "in clear"),
        ("'spark.python.unix.domain.socket.enabled', 'false'", "loopback"),
        ("'spark.driver.extraJavaOptions', '-agentlib:jdwp'", "debugger"),
        ("'spark.eventLog.dir', '/tmp/events'", "in clear"),
    ],
)
@pytest.mark.parametrize("how", ["builder", "context"])
def test_a_setting_that_takes_a_protection_away_is_refused_in_one_sentence(
    setting: str, said: str, how: str, anew: Notebook
) -> None:
    builder = f"SparkSession.builder.config({setting}).getOrCreate()"
    context = f"SparkContext(conf=SparkConf().set({setting}))"
    imports = "from pyspark import SparkConf, SparkContext\nfrom pyspark.sql import SparkSession\n"
    _, error = anew.run(imports + (builder if how == "builder" else context))
    assert error.startswith("RefusedError: This Spark session was not made: ")
    assert said in error
    assert "\n" not in error
    assert anew.value("SparkContext._active_spark_context") == "None"


@pytest.mark.parametrize(
    "attempt",
    [
        "SparkSession.builder.remote('sc://elsewhere').getOrCreate()",
        "SparkSession.builder.remote('local').getOrCreate()",
        "SparkSession.builder.config('spark.remote', 'sc://elsewhere').create()",
        "SparkSession.builder.config('spark.api.mode', 'connect').getOrCreate()",
        "os.environ['SPARK_REMOTE'] = 'sc://elsewhere'\nSparkSession.builder.getOrCreate()",
        "os.environ['SPARK_REMOTE'] = 'sc://elsewhere'\nSparkSession.builder.master('local').getOrCreate()",
        "os.environ['SPARK_REMOTE'] = 'sc://elsewhere'\nSparkSession.builder.create()",
        "os.environ['SPARK_API_MODE'] = 'connect'\nSparkSession.builder.getOrCreate()",
        "from pyspark.sql.connect.session import SparkSession as S\nS.builder.remote('sc://x').getOrCreate()",
    ],
)
def test_spark_connect_is_refused_in_one_sentence(attempt: str, anew: Notebook) -> None:
    try:
        _, error = anew.run(f"import os\nfrom pyspark.sql import SparkSession\n{attempt}")
        assert error.startswith("ConnectRefusedError: Spark Connect is not available in a sealbook kernel")
        assert "\n" not in error
    finally:
        anew.run("for name in ('SPARK_REMOTE', 'SPARK_API_MODE'): os.environ.pop(name, None)")
    assert anew.value("SparkSession.builder.getOrCreate().sparkContext.master") == "local[*]"


def test_a_master_that_is_elsewhere_is_not_gone_to(anew: Notebook) -> None:
    printed, error = anew.run(
        "from pyspark import SparkContext\nprint(SparkContext('spark://203.0.113.1:7077').master)"
    )
    assert not error
    assert "local[*]" in printed
    assert "`%scale` says where it runs" in printed


def test_what_the_host_put_into_the_environment_is_not_used(kernel_name: str, tmp_path: Path) -> None:
    import os

    hostile = {
        "SPARK_REMOTE": "sc://203.0.113.1",
        "MASTER": "spark://203.0.113.1:7077",
        "PYSPARK_GATEWAY_PORT": "1",
        "PYSPARK_GATEWAY_SECRET": "x",
        "PYSPARK_SUBMIT_ARGS": "--conf spark.io.encryption.enabled=false pyspark-shell",
        "SPARK_CONF_DIR": str(tmp_path),
        "JAVA_TOOL_OPTIONS": "-Dspark.app.name=hostile",
        "JDK_JAVA_OPTIONS": "-Dspark.app.name=hostile",
    }
    (tmp_path / "spark-defaults.conf").write_text("spark.app.name hostile\nspark.ssl.rpc.enabled false\n")
    notebook = Notebook(kernel_name, tmp_path, env=os.environ | hostile)
    try:
        assert notebook.value("spark.range(1).count(), sc.appName, sc.master") == "1 sealbook local[*]"
        assert notebook.value("sc.getConf().get('spark.ssl.rpc.enabled')") == "true"
    finally:
        notebook.close()


# -- PySpark as a whole ------------------------------------------------------------------------


def test_accumulators_broadcasts_udfs_and_callbacks_work_over_the_gateway(anew: Notebook) -> None:
    code = """
from pyspark.sql import functions as F
total = sc.accumulator(0)
table = sc.broadcast({"a": 2})
sc.parallelize(range(10)).foreach(lambda x: total.add(x * table.value["a"]))
doubled = F.udf(lambda x: 2 * x, "long")
as_udf = spark.range(4).select(doubled("id").alias("d")).groupBy().sum("d").first()[0]
seen = []
stream = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 5).load()
query = (stream.writeStream.foreachBatch(lambda frame, n: seen.append(frame.count()))
         .option("checkpointLocation", "checkpoints").trigger(availableNow=True).start())
query.awaitTermination(30)
query.stop()
pandas = spark.range(3).toPandas()["id"].sum()
"""
    assert anew.value("total.value, as_udf, pandas, sum(seen) > 0", code) == "90 12 3 True"


def test_keys_that_the_jvm_asks_for_come_from_the_kernels_session(anew: Notebook) -> None:
    code = "found = sc._jvm.sealbook.keys.Keys.current('session/spark').version()"
    assert anew.value("found", code) == "1"
    _, error = anew.run("sc._jvm.sealbook.keys.Keys.current('nobody/has-this')")
    assert "nobody/has-this" in error
    assert "Traceback" not in error


def test_what_is_written_after_another_default_key_was_chosen_is_sealed_to_that(
    anew: Notebook, tmp_path: Path
) -> None:
    code = (
        f"spark.range(2).write.parquet('sealed://{tmp_path}/a')\n"
        "%keys --default session/chosen\n"
        f"spark.range(2).write.parquet('sealed://{tmp_path}/b')\n"
        "%keys --default session/default\n"
        f"spark.range(2).write.parquet('sealed://{tmp_path}/c')"
    )
    _, error = anew.run(code)
    assert not error
    chosen = {
        name: b"session/chosen" in next((tmp_path / name).glob("part-*")).read_bytes() for name in "abc"
    }
    assert chosen == {"a": False, "b": True, "c": False}
