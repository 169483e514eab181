"""Stock Spark on `sealed://`: what it reads and writes, what lies on the disk, what is said when it fails.

Spark runs here as in a kernel, but without one: see local_spark.py.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark import SparkFiles
from pyspark.sql import DataFrame, functions
from pyspark.sql.streaming import readwriter

from local_spark import LocalSpark
from sealbook import sealing
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing import KeyUnavailableError, segments
from sealbook.sealing.codecs.registry import codec_named
from sealbook.sealing.filesystem import SealedFileSystem
from sealbook.spark import settings, streams

pytestmark = pytest.mark.xdist_group("local-spark")

_MARKER = "MARKER-7f3a"
_FORMATS = ["parquet", "csv", "json", "orc", "text"]
_OPTIONS = {"csv": {"header": "true", "inferSchema": "true"}}


@pytest.fixture
def files(spark: LocalSpark) -> SealedFileSystem:
    """What `sealed::` is in a kernel, with the keys that Spark has here."""
    return SealedFileSystem(keys=spark.keys, key="data")


def frame_of(spark: LocalSpark, rows: int = 1000, partitions: int = 2) -> DataFrame:
    word = functions.concat(functions.lit(f"{_MARKER}-"), functions.col("id").cast("string"))
    numbers = spark.session.range(rows, numPartitions=partitions)
    return numbers.withColumn("word", word).withColumn("part", functions.col("id") % 3)


def url(path: Path, key: str = "") -> str:
    return f"sealed://{key}{path}"


def written(path: Path) -> list[Path]:
    """The files of data below `path`; every file there, of whatever name, must be sealed."""
    found = [each for each in path.rglob("*") if each.is_file()]
    for each in found:
        raw = each.read_bytes()
        assert raw.startswith(b"SEALBOOK"), each
        assert _MARKER.encode() not in raw
        assert b"PAR1" not in raw[:8300]
        assert not each.name.endswith(".crc")
    return [each for each in found if not each.name.startswith(("_", "."))]


def sorted_ids(frame: DataFrame) -> list[int]:
    return sorted(int(row[0]) for row in frame.select("id").collect())


def is_one_sentence(error: BaseException) -> bool:
    text = str(error)
    return len(text) < 500 and "\n" not in text and "Exception" not in text and text.endswith(".")


# -- both directions ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", _FORMATS)
def test_what_spark_writes_it_reads_again_and_the_disk_has_nothing_in_clear(
    form: str, spark: LocalSpark, tmp_path: Path
) -> None:
    frame = frame_of(spark) if form != "text" else frame_of(spark).select("word")
    path = tmp_path / "table"
    frame.write.format(form).options(**_OPTIONS.get(form, {})).save(url(path))
    assert len(written(path)) == 2
    assert (path / "_SUCCESS").exists()
    again = spark.session.read.format(form).options(**_OPTIONS.get(form, {})).load(url(path))
    assert sorted(map(str, again.toJSON().collect())) == sorted(map(str, frame_json(frame, form, again)))


def frame_json(frame: DataFrame, form: str, again: DataFrame) -> list[str]:
    renamed = frame.withColumnRenamed("word", "value") if form == "text" else frame
    return (
        renamed.select(*(renamed[c].cast(again.schema[c].dataType) for c in again.columns)).toJSON().collect()
    )


def test_partitions_appends_and_overwrites(spark: LocalSpark, tmp_path: Path) -> None:
    path, frame = tmp_path / "table", frame_of(spark)
    frame.write.partitionBy("part").parquet(url(path))
    assert {each.parent.name for each in written(path)} == {"part=0", "part=1", "part=2"}
    one = spark.session.read.parquet(url(path)).where("part = 1")
    assert sorted_ids(one) == list(range(1, 1000, 3))
    frame.where("part = 1").write.partitionBy("part").mode("append").parquet(url(path))
    assert spark.session.read.parquet(url(path)).where("part = 1").count() == 2 * 333
    dynamic = frame.where("id = 1").write.option("partitionOverwriteMode", "dynamic")
    dynamic.partitionBy("part").mode("overwrite").parquet(url(path))
    assert sorted_ids(spark.session.read.parquet(url(path)).where("part = 1")) == [1]
    assert spark.session.read.parquet(url(path)).where("part = 2").count() == 333
    frame.where("id < 5").write.mode("overwrite").parquet(url(path))
    assert sorted_ids(spark.session.read.parquet(url(path))) == [0, 1, 2, 3, 4]
    with pytest.raises(Exception, match="already exists"):
        frame.write.parquet(url(path))
    frame.write.mode("ignore").parquet(url(path))
    assert spark.session.read.parquet(url(path)).count() == 5
    written(path)


def test_tables_lie_sealed_in_the_warehouse(spark: LocalSpark) -> None:
    frame_of(spark).write.saveAsTable("people")
    frame_of(spark).where("id < 10").write.insertInto("people")
    warehouse = Path(spark.session.conf.get("spark.sql.warehouse.dir").removeprefix("sealed:").lstrip("/"))
    assert len(written("/" / warehouse / "people")) >= 3
    assert spark.session.sql("select count(*) from people").first()[0] == 1010
    spark.session.sql("create table more using csv as select * from people where id < 3")
    assert spark.session.table("more").count() == 6
    written("/" / warehouse)
    spark.session.sql("drop table people")
    assert not ("/" / warehouse / "people").exists()


def test_python_reads_what_spark_wrote(spark: LocalSpark, files: SealedFileSystem, tmp_path: Path) -> None:
    frame = frame_of(spark, partitions=1)
    frame.write.parquet(url(tmp_path / "p"))
    frame.write.option("header", "true").csv(url(tmp_path / "c"))
    (parquet,), (csv,) = written(tmp_path / "p"), written(tmp_path / "c")
    assert pq.read_table(str(parquet), filesystem=files).num_rows == 1000
    with files.open(str(parquet)) as file:
        assert pd.read_parquet(file)["word"][7] == f"{_MARKER}-7"
    with sealing.open_sealed(csv, keys=spark.keys) as file:
        assert pd.read_csv(file)["id"].sum() == 499500
    assert sealing.read_bytes(csv, keys=spark.keys).startswith(b"id,word,part\n")
    dataset = pq.read_table(str(tmp_path / "p"), filesystem=files)
    assert dataset.num_rows == 1000
    assert files.info(str(csv))["size"] == len(sealing.read_bytes(csv, keys=spark.keys))


def test_spark_reads_what_python_wrote(spark: LocalSpark, files: SealedFileSystem, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(500), "word": [f"{_MARKER}-{i}" for i in range(500)]})
    codec = codec_named("dataframe")
    with sealing.SealedWriter(tmp_path / "seal", key="data", keys=spark.keys, codec="dataframe") as file:
        codec.prepare(frame).write(file)  # what `%seal` does
    with files.open(str(tmp_path / "a.parquet"), "wb") as file:
        frame.to_parquet(file)
    with files.open(str(tmp_path / "a.csv"), "wb") as file:
        frame.to_csv(file, index=False)
    (tmp_path / "plain.csv").write_text(frame.to_csv(index=False))
    sealing.seal_file(
        tmp_path / "plain.csv", tmp_path / "b.csv", key="data", keys=spark.keys, context={"study": "7"}
    )
    read = spark.session.read
    for found in (
        read.parquet(url(tmp_path / "seal")),
        read.parquet(url(tmp_path / "a.parquet")),
        read.csv(url(tmp_path / "a.csv"), header=True),
        read.csv(url(tmp_path / "b.csv"), header=True),
    ):
        assert sorted_ids(found) == list(range(500))


def test_globs_and_lists_of_paths_and_hidden_files(
    spark: LocalSpark, files: SealedFileSystem, tmp_path: Path
) -> None:
    for name in ("a.csv", "b.csv", "_hidden.csv", ".hidden.csv", "c d,%20[é].csv"):
        with files.open(str(tmp_path / name), "wb") as file:
            file.write(f"{name}\n".encode())
    read = spark.session.read
    assert read.text(url(tmp_path)).count() == 3
    assert read.text(url(tmp_path / "*.csv")).count() == 3
    assert read.text(url(tmp_path / "{a,b}.csv")).count() == 2
    assert read.text([url(tmp_path / "a.csv"), url(tmp_path / "b.csv")]).count() == 2
    assert spark.session.sparkContext.textFile(url(tmp_path / "[ab].csv")).count() == 2
    shown = {row[0] for row in read.text(url(tmp_path)).select(functions.input_file_name()).collect()}
    assert len(shown) == 3
    assert all(each.startswith("sealed:/") for each in shown)


@pytest.mark.parametrize(
    ("authority", "key"), [("", "data"), ("data", "data"), ("lab+patients", "lab/patients")]
)
def test_the_url_names_the_key_to_seal_with_and_the_only_one_to_read_with(
    authority: str, key: str, spark: LocalSpark, tmp_path: Path
) -> None:
    frame_of(spark, 10).write.csv(url(tmp_path / "t", authority))
    assert {sealing.inspect(each).keys for each in written(tmp_path / "t")} == {((key, 1),)}
    for other in ("", "data", "lab+patients"):
        if other.replace("+", "/") in ("", key):
            assert spark.session.read.csv(url(tmp_path / "t", other)).count() == 10
            continue
        with pytest.raises(RefusedError, match=r"is not sealed to key .* alone") as refused:
            spark.session.read.csv(url(tmp_path / "t", other)).collect()
        assert is_one_sentence(refused.value)


def test_every_way_to_write_a_table_works_where_the_url_names_a_key_that_is_rotated_meanwhile(
    spark: LocalSpark, tmp_path: Path
) -> None:
    path, frame, where = tmp_path / "table", frame_of(spark), url(tmp_path / "table", "lab+turning")
    spark.keys.create("lab/turning")
    frame.write.partitionBy("part").parquet(where)
    spark.keys.create("lab/turning")
    # Another cache of keys, as a kernel's after `sealbook keys rotate` and half a minute.
    spark.driver.gateway.jvm.sealbook.keys.Keys.forget()
    frame.where("part = 1").write.partitionBy("part").mode("append").parquet(where)
    assert {key for each in written(path) for key in sealing.inspect(each).keys} == {
        ("lab/turning", 1),
        ("lab/turning", 2),
    }
    assert spark.session.read.parquet(where).where("part = 1").count() == 2 * 333
    dynamic = frame.where("id = 1").write.option("partitionOverwriteMode", "dynamic")
    dynamic.partitionBy("part").mode("overwrite").parquet(where)
    assert sorted_ids(spark.session.read.parquet(where).where("part = 1")) == [1]
    assert spark.session.read.parquet(where).count() == 1 + 334 + 333
    assert not list(path.glob(".spark-staging*"))
    frame.where("id < 5").write.mode("overwrite").parquet(where)
    assert sorted_ids(spark.session.read.parquet(where)) == [0, 1, 2, 3, 4]

    tables = url(tmp_path / "tables", "lab+turning")
    spark.session.sql(f"create database keyed location '{tables}'")
    frame.write.partitionBy("part").saveAsTable("keyed.people")
    frame.where("id < 10").write.mode("append").saveAsTable("keyed.people", partitionBy="part")
    frame.where("id < 10").write.insertInto("keyed.people")
    assert spark.session.table("keyed.people").count() == 1020
    spark.session.sql("insert overwrite keyed.people partition (part = 2) select 7, 'x'")
    assert spark.session.table("keyed.people").where("part = 2").count() == 1
    spark.session.sql(
        f"create table keyed.other using orc location '{url(path / 'o', 'lab+turning')}' as select 1"
    )
    assert spark.session.table("keyed.other").count() == 1
    assert {key for each in written(tmp_path / "tables") for key in sealing.inspect(each).keys} == {
        ("lab/turning", 2)
    }
    spark.session.sql("drop database keyed cascade")


def test_a_file_sealed_to_a_lesser_key_cannot_stand_in_a_table_of_another(
    spark: LocalSpark, tmp_path: Path
) -> None:
    """The host has had nodes under a lax policy write it, and puts it where the strict table is."""
    spark.keys.create("lax")
    frame_of(spark, 10).write.csv(url(tmp_path / "strict", "lab+patients"))
    frame_of(spark, 10).write.csv(url(tmp_path / "forged", "lax"))
    forged = written(tmp_path / "forged")[0]
    forged.rename(tmp_path / "strict" / forged.name)
    with pytest.raises(RefusedError, match="not sealed to key lab/patients alone") as refused:
        spark.session.read.csv(url(tmp_path / "strict", "lab+patients")).collect()
    assert is_one_sentence(refused.value)
    assert forged.name in str(refused.value)


# -- how much is read -------------------------------------------------------------------------


def test_columns_that_are_not_asked_for_are_not_decrypted(
    spark: LocalSpark, files: SealedFileSystem, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{i}": random.random(500_000) for i in range(8)})
    with files.open(str(tmp_path / "wide.parquet"), "wb") as file:
        frame.to_parquet(file, row_group_size=500_000, compression=None)
    total = segments.segment_count(files.info(str(tmp_path / "wide.parquet"))["size"])
    found = spark.session.read.parquet(url(tmp_path / "wide.parquet"))
    before = spark.counters.segmentsDecrypted()
    assert found.agg(functions.sum("c3")).first()[0] == pytest.approx(frame["c3"].sum())
    used = spark.counters.segmentsDecrypted() - before
    assert total >= 30
    assert used <= total / 8 + 6, (used, total)  # the column, its edges, and the footer


def test_one_file_is_split_among_tasks_and_hardly_anything_is_decrypted_twice(
    spark: LocalSpark, files: SealedFileSystem, tmp_path: Path
) -> None:
    line = "x" * 99 + "\n"
    with files.open(str(tmp_path / "long.txt"), "wb") as file:
        file.write(line.encode() * 80_000)  # 8 MB
    total = segments.segment_count(8_000_000)
    spark.session.conf.set("spark.sql.files.maxPartitionBytes", "2m")
    try:
        found = spark.session.read.text(url(tmp_path / "long.txt"))
        parts = found.rdd.getNumPartitions()
        before = spark.counters.segmentsDecrypted()
        assert found.count() == 80_000
        used = spark.counters.segmentsDecrypted() - before
    finally:
        spark.session.conf.unset("spark.sql.files.maxPartitionBytes")
    assert parts >= 3
    # Per task: the last segment, which every opening checks, and one at either edge.
    assert used <= total + 3 * parts


def test_binary_files_and_checkpoints_go_through_the_file_system_too(
    spark: LocalSpark, files: SealedFileSystem, tmp_path: Path
) -> None:
    data = os.urandom(3_000_000)
    with files.open(str(tmp_path / "blob"), "wb") as file:
        file.write(data)
    found = spark.session.read.format("binaryFile").load(url(tmp_path / "blob")).first()
    assert bytes(found.content) == data
    assert found.length == len(data)
    spark.session.sparkContext.setCheckpointDir(url(tmp_path / "checkpoint"))
    rdd = spark.session.sparkContext.parallelize([_MARKER] * 100, 2)
    rdd.checkpoint()
    assert rdd.count() == 100
    assert written(tmp_path / "checkpoint")


def test_a_stream_from_and_to_sealed_directories(spark: LocalSpark, tmp_path: Path) -> None:
    frame_of(spark, 100).write.parquet(url(tmp_path / "in"))
    stream = spark.session.readStream.schema("id long, word string, part long").parquet(url(tmp_path / "in"))
    query = (
        stream.writeStream.format("parquet")
        .option("checkpointLocation", url(tmp_path / "state"))
        .trigger(availableNow=True)
        .start(url(tmp_path / "out"))
    )
    assert query.awaitTermination(120)
    assert spark.session.read.parquet(url(tmp_path / "out")).count() == 100
    written(tmp_path)


def stream_to(spark: LocalSpark, source: Path, target: str, state: Path, *partitions: str) -> None:
    """Have a stream write what is new in `source`, a batch for each file; the third compacts the log."""
    spark.session.conf.set("spark.sql.streaming.fileSink.log.compactInterval", "3")
    try:
        stream = spark.session.readStream.schema("id long, part long").option("maxFilesPerTrigger", 1)
        writer = stream.parquet(url(source)).writeStream.format("parquet").partitionBy(*partitions)
        query = writer.option("checkpointLocation", url(state)).trigger(availableNow=True).start(target)
        assert query.awaitTermination(120)
    finally:
        spark.session.conf.unset("spark.sql.streaming.fileSink.log.compactInterval")


def add_files(spark: LocalSpark, directory: Path, count: int) -> None:
    for _ in range(count):
        numbers = spark.session.range(10, numPartitions=1).selectExpr("id", "id % 2 as part")
        numbers.write.mode("append").parquet(url(directory))


def count_by_streaming(spark: LocalSpark, where: str, state: Path) -> int:
    stream = spark.session.readStream.schema("id long").parquet(where).writeStream.format("memory")
    query = stream.queryName("counted").option("checkpointLocation", url(state)).trigger(availableNow=True)
    query.start().awaitTermination(120)
    return spark.session.table("counted").count()


def each_reader(spark: LocalSpark, where: str, state: Path) -> list[Callable[[], int]]:
    read = spark.session.read
    return [
        lambda: read.schema("id long").parquet(where).count(),
        lambda: read.parquet(where).count(),
        lambda: spark.session.table(f"parquet.`{where}`").count(),
        lambda: count_by_streaming(spark, where, state),
    ]


@pytest.mark.parametrize("partitions", [(), ("part",)], ids=["one directory", "partitions"])
@pytest.mark.parametrize(("authority", "other"), [("", "data"), ("data", ""), ("lab+patients", "")])
def test_what_a_stream_wrote_is_all_there_under_its_name_and_refused_under_another(
    authority: str, other: str, partitions: tuple[str, ...], spark: LocalSpark, tmp_path: Path
) -> None:
    """Spark compares whole URLs: it would find no row, or files that the URL's key is not asked for."""
    table = tmp_path / "a table,%20é"
    for newest in ("2.compact", "3"):
        add_files(spark, tmp_path / "in", 3 if newest == "2.compact" else 1)
        stream_to(spark, tmp_path / "in", url(table, authority), tmp_path / "state", *partitions)
        assert (table / "_spark_metadata" / newest).exists()
        rows = 30 if newest == "2.compact" else 40
        own = each_reader(spark, url(table, authority), tmp_path / f"own {newest}")
        assert [count() for count in own] == [rows] * 4
        for count in each_reader(spark, url(table, other), tmp_path / f"other {newest}"):
            with pytest.raises(InputError, match="was written by a stream") as refused:
                count()
            assert str(refused.value) == (
                f"{url(table, other)} was written by a stream as {url(table, authority)}:"
                " use it under that name and in that place."
            )
    # What is read without the stream's log has no names in it.
    for key in (authority, other if authority != "lab+patients" else ""):
        below = url(table / "part=1" if partitions else table / "part-*", key)
        assert spark.session.read.schema("id long").parquet(below).count() == (20 if partitions else 40)
    assert len(written(table)) >= 4


def test_a_stream_does_not_go_on_under_another_name_and_writes_nothing_there(
    spark: LocalSpark, tmp_path: Path
) -> None:
    add_files(spark, tmp_path / "in", 1)
    stream_to(spark, tmp_path / "in", url(tmp_path / "t", "data"), tmp_path / "state")
    before = sorted(path.name for path in (tmp_path / "t").rglob("*"))
    add_files(spark, tmp_path / "in", 1)
    with pytest.raises(InputError, match="was written by a stream as sealed://data/") as refused:
        stream_to(spark, tmp_path / "in", url(tmp_path / "t"), tmp_path / "state")
    assert is_one_sentence(refused.value)
    with pytest.raises(RefusedError, match="not sealed to key lab/patients alone"):
        stream_to(spark, tmp_path / "in", url(tmp_path / "t", "lab+patients"), tmp_path / "state")
    assert sorted(path.name for path in (tmp_path / "t").rglob("*")) == before
    stream_to(spark, tmp_path / "in", url(tmp_path / "t", "data"), tmp_path / "state")
    assert spark.session.read.parquet(url(tmp_path / "t", "data")).count() == 20


def test_what_a_stream_wrote_under_one_key_is_refused_under_another_also_when_it_is_sealed_anew(
    spark: LocalSpark, tmp_path: Path
) -> None:
    add_files(spark, tmp_path / "in", 1)
    stream_to(spark, tmp_path / "in", url(tmp_path / "t", "data"), tmp_path / "state")
    where = url(tmp_path / "t", "lab+patients")
    for count in each_reader(spark, where, tmp_path / "1"):
        with pytest.raises(RefusedError, match="not sealed to key lab/patients alone") as refused:
            count()
        assert is_one_sentence(refused.value)
    for file in (*written(tmp_path / "t"), tmp_path / "t" / "_spark_metadata" / "0"):
        sealing.rekey(file, keys=spark.keys, to="lab/patients")
    for count in each_reader(spark, where, tmp_path / "2"):
        with pytest.raises(InputError, match="was written by a stream as sealed://data/"):
            count()


def test_what_a_stream_wrote_is_refused_where_it_was_moved_to(spark: LocalSpark, tmp_path: Path) -> None:
    add_files(spark, tmp_path / "in", 1)
    stream_to(spark, tmp_path / "in", url(tmp_path / "t"), tmp_path / "state")
    (tmp_path / "t").rename(tmp_path / "moved")
    for count in each_reader(spark, url(tmp_path / "moved"), tmp_path / "readers"):
        with pytest.raises(InputError, match="was written by a stream as") as refused:
            count()
        assert is_one_sentence(refused.value)
        assert f"as {url(tmp_path / 't')}:" in str(refused.value)


@pytest.mark.parametrize(("authority", "other"), [("", "data"), ("data", "")])
def test_what_no_stream_wrote_has_the_same_rows_under_either_name(
    authority: str, other: str, spark: LocalSpark, tmp_path: Path
) -> None:
    frame = frame_of(spark, 30)
    frame.write.parquet(url(tmp_path / "plain", authority))
    frame.write.partitionBy("part").parquet(url(tmp_path / "parts", authority))
    name = f"named_{authority or 'nothing'}"
    frame.write.option("path", url(tmp_path / "named", authority)).saveAsTable(name)
    frame.where("id < 5").write.insertInto(name)
    for directory, expected in (("plain", 30), ("parts", 30), ("named", 35)):
        for count in each_reader(spark, url(tmp_path / directory, other), tmp_path / f"of {directory}"):
            assert count() == expected
    # And written on under that name.
    frame.where("part = 1").write.partitionBy("part").mode("append").parquet(url(tmp_path / "parts", other))
    for key in (authority, other):
        found = spark.session.read.parquet(url(tmp_path / "parts", key))
        assert sorted_ids(found.where("part = 1")) == sorted([*range(1, 30, 3)] * 2)
    spark.session.sql(f"drop table {name}")


def marked(directory: Path, marker: str) -> list[Path]:
    """Files below `directory` that have the marker in their name or, in clear, in their content."""
    return [
        path
        for path in directory.rglob("*")
        if marker in path.name or (path.is_file() and marker.encode() in path.read_bytes())
    ]


def scratch(spark: LocalSpark) -> Path:
    """Where this Spark has all its local directories."""
    root = Path(SparkFiles.getRootDirectory())
    return next(path for path in root.parents if path.name.startswith("sb-"))


def test_the_state_of_a_stream_that_names_no_place_for_it_is_not_in_clear(
    spark: LocalSpark, tmp_path: Path
) -> None:
    rows = [(f"MARKSTREAM{number}", number) for number in range(20)]
    spark.session.createDataFrame(rows, "word string, id int").write.parquet(url(tmp_path / "in"))
    base = Path(spark.session.conf.get(settings.CHECKPOINTS).removeprefix("sealed://"))
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("start", "toTable"):
            patch.setattr(readwriter.DataStreamWriter, name, getattr(readwriter.DataStreamWriter, name))
        streams.install(readwriter)  # as in a kernel
        for _ in range(2):  # a cell that is run again begins anew
            source = spark.session.readStream.schema("word string, id int").parquet(url(tmp_path / "in"))
            counted = source.groupBy("word").count()
            query = counted.writeStream.format("memory").queryName("words").outputMode("complete").start()
            query.processAllAvailable()
            seen.append(spark.session.table("words").count())
            assert any(path.name.endswith(".delta") for path in base.rglob("state/*/*/*"))
            assert marked(scratch(spark), "MARKSTREAM") == []
            assert marked(tmp_path, "MARKSTREAM") == []
            assert marked(base, "MARKSTREAM") == []
            query.stop()
        named = source.writeStream.format("csv").option("checkpointLocation", url(tmp_path / "own"))
        named.trigger(availableNow=True).start(url(tmp_path / "out")).awaitTermination(120)
    assert seen == [20, 20]
    assert written(base)
    assert written(tmp_path / "own")
    assert not list(scratch(spark).rglob("temporary-*"))
    assert spark.session.conf.get(settings.CHECKPOINTS) == url(base)


@pytest.mark.parametrize("how", ["addFile", "addPyFile", "addArchive", "add file", "add jar", "add archive"])
def test_what_is_sealed_is_not_sent_along_with_jobs_in_clear(
    how: str, spark: LocalSpark, files: SealedFileSystem, tmp_path: Path
) -> None:
    name = {"Py": "a.py", "rch": "a.zip", "jar": "a.jar"}
    file = tmp_path / next((value for key, value in name.items() if key in how), "a.txt")
    with files.open(str(file), "wb") as sealed:
        sealed.write(b"# MARKSENT\n")
    context = spark.session.sparkContext
    local = scratch(spark)
    with pytest.raises(Exception, match="cannot be sent along") if how != "add jar" else nullcontext():
        if " " in how:
            spark.session.sql(f"{how} '{url(file)}'")
        else:
            getattr(context, how)(url(file))
    assert marked(local, "MARKSENT") == []
    assert marked(local, file.name) == []
    # Nothing of it is on the list of what each task fetches first.
    assert context.parallelize(range(4), 2).sum() == 6


# -- what does not open -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "csv", "json", "orc"])
@pytest.mark.parametrize("harm", ["cut", "cut to nothing", "changed", "extended"])
def test_a_damaged_file_of_a_table_is_refused_in_one_sentence(
    harm: str, form: str, spark: LocalSpark, tmp_path: Path
) -> None:
    frame_of(spark).write.format(form).save(url(tmp_path / "t"))
    victim = min(written(tmp_path / "t"))
    raw = victim.read_bytes()
    victim.write_bytes(
        {
            "cut": raw[:-7],
            "cut to nothing": b"",
            "changed": raw[:8300] + bytes([raw[8300] ^ 1]) + raw[8301:],
            "extended": raw + b"\0",
        }[harm]
    )
    schema = "id long, word string, part long"
    with pytest.raises(SealbookError) as refused:
        spark.session.read.schema(schema).format(form).load(url(tmp_path / "t")).collect()
    assert is_one_sentence(refused.value), refused.value
    assert victim.name in str(refused.value)
    expected: Any = InputError if harm == "cut to nothing" else RefusedError
    assert isinstance(refused.value, expected)


def test_a_file_that_is_not_sealed_is_refused_in_one_sentence(spark: LocalSpark, tmp_path: Path) -> None:
    frame_of(spark, 10).write.csv(url(tmp_path / "t"))
    (tmp_path / "t" / "part-9.csv").write_text("1,smuggled,0\n")
    with pytest.raises(InputError, match="is not a file sealed by sealbook") as refused:
        spark.session.read.csv(url(tmp_path / "t")).collect()
    assert is_one_sentence(refused.value)


def test_a_key_that_is_not_released_is_named_in_one_sentence(spark: LocalSpark, tmp_path: Path) -> None:
    frame = frame_of(spark, 10)
    with pytest.raises(KeyUnavailableError, match="no key lab/secret") as refused:
        frame.write.csv(url(tmp_path / "t", "lab+secret"))
    assert is_one_sentence(refused.value)
    assert written(tmp_path) == []
    other = sealing.InMemoryKeys()
    other.create("elsewhere")
    sealing.write_bytes(tmp_path / "other.csv", b"1\n", key="elsewhere", keys=other)
    with pytest.raises(KeyUnavailableError, match="key elsewhere here") as refused:
        spark.session.read.csv(url(tmp_path / "other.csv")).collect()
    assert is_one_sentence(refused.value)


@pytest.mark.parametrize("authority", ["A", "a+b+c", "user@data", "data:80", "..", "a%2Fb"])
def test_a_url_that_names_no_key_is_refused_in_one_sentence(
    authority: str, spark: LocalSpark, tmp_path: Path
) -> None:
    with pytest.raises(SealbookError) as refused:
        frame_of(spark, 10).write.csv(url(tmp_path / "t", authority))
    assert is_one_sentence(refused.value), refused.value
    assert written(tmp_path) == []


def test_a_job_that_fails_half_way_leaves_no_table(spark: LocalSpark, tmp_path: Path) -> None:
    @functions.udf("string")
    def word(number: int) -> str:
        if number == 900:
            raise ValueError("on purpose")
        return _MARKER

    frame = spark.session.range(1000, numPartitions=4).withColumn("word", word("id"))
    with pytest.raises(Exception, match="on purpose"):
        frame.write.csv(url(tmp_path / "t"))
    assert not (tmp_path / "t" / "_SUCCESS").exists()
    assert written(tmp_path / "t") == []


@contextmanager
def writing(jar: Path, target: Path, how: str) -> Iterator[Callable[[], None]]:
    """Have another process write to `target`; what is yielded kills it, and so does the end of the block."""
    program = Path(__file__).with_name("killed_writer.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, program, jar, target, how], stdout=subprocess.PIPE, env=environment, text=True
    ) as writer:
        assert writer.stdout is not None
        pid = int(writer.stdout.readline())

        def kill() -> None:
            os.kill(pid, signal.SIGKILL)

        try:
            yield kill
        finally:
            with suppress(ProcessLookupError):
                kill()
            writer.kill()


def wait_for(happened: Callable[[], object], pause: float = 0.1) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(pause)


def has_a_committed_task(target: Path) -> bool:
    # A task that ended has its file in a directory `task_...`, the other still in `_temporary`.
    return any(target.glob("_temporary/0/task_*/**/*part-*"))


def refused_as_half_written(spark: LocalSpark, path: Path, delete: Path) -> None:
    with pytest.raises(InputError, match="half-written table") as refused:
        spark.session.read.csv(url(path)).collect()
    assert is_one_sentence(refused.value)
    assert f"or delete {delete} to read" in str(refused.value)


def test_a_job_that_is_killed_leaves_nothing_that_can_be_taken_for_its_table(
    jar: Path, spark: LocalSpark, tmp_path: Path
) -> None:
    target = tmp_path / "killed" / "t"
    target.parent.mkdir()
    with writing(jar, target, "wait"):
        wait_for(lambda: has_a_committed_task(target))
    found = [path for path in target.rglob("*") if path.is_file()]
    assert found
    assert not (target / "_SUCCESS").exists()
    assert not any(b"MARKER" in path.read_bytes() for path in found)
    assert [path for path in target.iterdir() if not path.name.startswith("_")] == []
    refused_as_half_written(spark, target, target / "_temporary")
    # Written again, it is a table as any other.
    frame_of(spark, 10).write.mode("overwrite").csv(url(target))
    assert spark.session.read.csv(url(target)).count() == 10


def test_what_was_there_is_read_while_a_job_appends_and_after_it_was_killed_before_its_end(
    jar: Path, spark: LocalSpark, tmp_path: Path
) -> None:
    target = tmp_path / "killed" / "t"
    target.parent.mkdir()
    frame_of(spark, 10).write.csv(url(target))
    with writing(jar, target, "append"):
        wait_for(lambda: has_a_committed_task(target))
        assert spark.session.read.csv(url(target)).count() == 10
    assert spark.session.read.csv(url(target)).count() == 10
    # The committer of another would take along what the first one's finished task left.
    with pytest.raises(InputError, match="another job that has not ended, or was killed") as refused:
        frame_of(spark, 7).write.mode("append").csv(url(target))
    assert is_one_sentence(refused.value)
    assert str(target / "_temporary") in str(refused.value)
    shutil.rmtree(target / "_temporary")
    frame_of(spark, 7).write.mode("append").csv(url(target))
    assert spark.session.read.csv(url(target)).count() == 17


def test_half_an_append_is_no_table(jar: Path, spark: LocalSpark, tmp_path: Path) -> None:
    """Killed while its files are moved, behind the `_SUCCESS` of the job before it."""
    target = tmp_path / "killed" / "t"
    target.parent.mkdir()
    seed = spark.session.range(300, numPartitions=1).selectExpr("id", "'w' as word", "id % 300 as part")
    seed.write.partitionBy("part").csv(url(target))
    assert (target / "_SUCCESS").exists()
    first = target / "part=0"
    with writing(jar, target, "many") as kill:
        wait_for(lambda: len(os.listdir(first)) > 1, pause=0)
        kill()
    assert (target / "_temporary").exists(), "the job ended before it was killed"
    for path in (target, first, target / "part=299"):
        refused_as_half_written(spark, path, target / "_temporary")
    with pytest.raises(InputError, match="another job"):
        seed.write.mode("append").partitionBy("part").csv(url(target))
    seed.write.mode("overwrite").partitionBy("part").csv(url(target))
    assert spark.session.read.csv(url(target)).count() == 300


def test_a_partition_that_was_to_be_overwritten_is_missed(
    jar: Path, spark: LocalSpark, tmp_path: Path
) -> None:
    target = tmp_path / "killed" / "t"
    target.parent.mkdir()
    frame_of(spark, 30).write.partitionBy("part").csv(url(target))
    with writing(jar, target, "overwrite one"):
        wait_for(lambda: has_a_committed_task(target))
    assert not (target / "part=1").exists()
    refused_as_half_written(spark, target, target / "_temporary")


def test_partitions_that_are_half_overwritten_are_no_table(
    jar: Path, spark: LocalSpark, tmp_path: Path
) -> None:
    target = tmp_path / "killed" / "t"
    target.parent.mkdir()
    seed = spark.session.range(300, numPartitions=1).selectExpr("id", "'w' as word", "id % 300 as part")
    seed.write.partitionBy("part").csv(url(target))
    with writing(jar, target, "dynamic") as kill:
        wait_for((target / ".spark-staging").exists, pause=0)
        kill()
    for path in (target, target / "part=299"):
        refused_as_half_written(spark, path, target / ".spark-staging")
    seed.write.mode("overwrite").partitionBy("part").csv(url(target))
    assert spark.session.read.csv(url(target)).count() == 300


def test_what_was_written_beside_stays_when_a_job_is_aborted(spark: LocalSpark, tmp_path: Path) -> None:
    frame_of(spark, 10).write.csv(url(tmp_path / "t"))
    before = sorted(each.name for each in written(tmp_path / "t"))
    broken = spark.session.range(10).select(functions.raise_error(functions.lit("on purpose")).cast("string"))
    with pytest.raises(Exception, match="on purpose"):
        broken.write.mode("append").csv(url(tmp_path / "t"))
    assert sorted(each.name for each in written(tmp_path / "t")) == before
    assert spark.session.read.csv(url(tmp_path / "t")).count() == 10


# -- keys -------------------------------------------------------------------------------------


def test_keys_are_fetched_once_and_not_per_task(spark: LocalSpark, tmp_path: Path) -> None:
    spark.keys.create("once")
    frame_of(spark, 400, partitions=40).write.csv(url(tmp_path / "t", "once"))
    assert spark.session.read.csv(url(tmp_path / "t")).count() == 400
    assert len(written(tmp_path / "t")) == 40
    assert spark.keys.asked["once", 1] == 1
    # What is current is asked for anew after half a minute; a slow machine may take that long.
    assert spark.keys.asked["once", 0] <= 4


def test_a_rotated_key_reads_old_files_and_new_ones(spark: LocalSpark, tmp_path: Path) -> None:
    spark.keys.create("turning")
    sealing.write_bytes(tmp_path / "a.csv", b"1\n", key="turning", keys=spark.keys)
    spark.keys.create("turning")
    sealing.write_bytes(tmp_path / "b.csv", b"2\n", key="turning", keys=spark.keys)
    assert spark.session.read.csv(url(tmp_path)).count() == 2
    sealing.rekey(tmp_path / "a.csv", keys=spark.keys, to="data")
    assert spark.session.read.csv(url(tmp_path)).count() == 2


def test_nothing_secret_is_in_the_configuration_or_the_log(spark: LocalSpark) -> None:
    hadoop = spark.session.sparkContext._jsc.hadoopConfiguration()
    shown = " ".join(f"{entry.getKey()}={entry.getValue()}" for entry in hadoop.iterator())
    shown += str(spark.session.sparkContext.getConf().getAll()) + spark.printed()
    for name, version in list(spark.keys.asked):
        if version and name != "elsewhere":
            secret = spark.keys.get(name, version).secret
            assert base64.b64encode(secret).decode() not in shown
            assert secret.hex() not in shown
    assert _MARKER not in spark.printed()


def test_fsspec_and_spark_agree_on_names_and_sizes(
    spark: LocalSpark, files: SealedFileSystem, tmp_path: Path
) -> None:
    frame_of(spark, 10).write.csv(url(tmp_path / "t"))
    assert isinstance(files, fsspec.AbstractFileSystem)
    listed = spark.session.read.format("binaryFile").load(url(tmp_path / "t")).select("path", "length")
    theirs = {Path(row.path.removeprefix("sealed:")): row.length for row in listed.collect()}
    ours = {path: files.info(str(path))["size"] for path in written(tmp_path / "t")}
    assert theirs == ours
