"""Writes to a sealed table what never gets finished; whoever starts this kills the JVM, whose number it says.

``python killed_writer.py JAR DIRECTORY HOW``: of two tasks that are `wait`, `append` or `overwrite one`, the
first ends and is committed, and the second waits; `many` and `dynamic` write 300 partitions and are killed
while these are moved to their places.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, functions

from local_spark import local_spark


def slowly(rows: Iterator[object]) -> Iterator[object]:
    for row in rows:
        if row.id >= 500:
            time.sleep(600)
        yield row


def write(session: SparkSession, url: str, how: str) -> None:
    frame = session.range(1000, numPartitions=2).withColumn("word", functions.lit("MARKER"))
    if how in ("wait", "append"):
        endless(session, frame).write.mode("error" if how == "wait" else "append").csv(url)
    elif how == "overwrite one":
        endless(session, frame).createOrReplaceTempView("new")
        session.sql(
            "create table t (id long, word string, part int) using csv partitioned by (part) "
            f"location '{url}'"
        )
        session.catalog.recoverPartitions("t")
        session.sql("insert overwrite t partition (part = 1) select id, word from new")
    else:
        many = frame.withColumn("part", functions.col("id") % 300).write.partitionBy("part")
        if how == "many":
            many.mode("append").csv(url)
        else:
            many.mode("overwrite").option("partitionOverwriteMode", "dynamic").csv(url)


def endless(session: SparkSession, frame: DataFrame) -> DataFrame:
    return session.createDataFrame(frame.rdd.mapPartitions(slowly), frame.schema)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    with local_spark(Path(sys.argv[1]), target.parent) as spark:
        print(spark.driver.pid, flush=True)
        write(spark.session, f"sealed://{target}", sys.argv[3])
