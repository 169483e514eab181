"""Writes a sealed table that never gets finished; whoever starts this kills the JVM, whose number it prints.

``python killed_writer.py JAR DIRECTORY``: the first of two tasks ends and is committed, the second waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pyspark.sql import functions

from local_spark import local_spark


def slowly(rows: Iterator[object]) -> Iterator[object]:
    for row in rows:
        if row.id >= 500:
            time.sleep(600)
        yield row


if __name__ == "__main__":
    target = Path(sys.argv[2])
    with local_spark(Path(sys.argv[1]), target.parent) as spark:
        print(spark.driver.pid, flush=True)
        session = spark.session
        frame = session.range(1000, numPartitions=2).withColumn("word", functions.lit("MARKER"))
        session.createDataFrame(frame.rdd.mapPartitions(slowly), frame.schema).write.csv(f"sealed://{target}")
