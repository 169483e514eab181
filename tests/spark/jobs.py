"""Jobs that tests run on a cluster; loaded by driver_program.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd


def run(spark, arguments):
    return globals()[arguments.pop("name")](spark, **arguments)


def total(spark, count=1000):
    """A job without data worth anything."""
    return spark.range(count).selectExpr("sum(id)").collect()[0][0]


def where(spark):
    """The environment, arguments and parent of a Python worker, and those of the executor's JVM."""

    def look(_):
        import os
        from pathlib import Path

        parent, found = os.getppid(), []
        for _ in range(4):
            stat = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
            found.append(parent)
            parent = int(stat[1])
        return [
            {
                "environment": dict(os.environ),
                "parents": found,
                "path": sys.path,
                "executable": sys.executable,
            }
        ]

    return spark.sparkContext.parallelize(range(2), 2).mapPartitions(look).collect()


def everywhere(spark, marker, ready=None, go=None, table=None, spill=True):
    """Move a marker through every channel that Spark has for data."""
    from pyspark import StorageLevel
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql.functions import pandas_udf, udf

    context = spark.sparkContext
    done = {}
    broadcast = context.broadcast([f"{marker}-broadcast-{i}" for i in range(2000)])
    closure = f"{marker}-closure"

    def work(i):
        print(f"{marker}-print-{len(closure)}", flush=True)
        sys.stderr.write(f"{marker}-stderr\n")
        return f"{marker}-result-{len(broadcast.value)}-{i}"

    done["closure"] = len(
        context.parallelize([f"{marker}-data-{i}" for i in range(400)], 4).map(work).collect()
    )
    frame = spark.range(4000, numPartitions=4).select(
        F.concat(F.lit(f"{marker}-shuffle-"), F.col("id").cast("string")).alias("text"), F.col("id")
    )
    done["shuffle"] = (
        frame.repartition(4, "text").groupBy(F.substring("text", -1, 1)).agg(F.max("text")).count()
    )

    @udf("string")
    def shout(text):
        return text.upper().lower() + f"{marker}-udf"

    @pandas_udf("string")
    def vector(text: pd.Series) -> pd.Series:
        return text + f"{marker}-pandas"

    done["udf"] = frame.select(shout("text"), vector("text")).limit(50).collect()[0][0][:3]
    # Cached on disk, and sorted with so little memory that it is spilled.
    cached = frame.repartition(4, "text").persist(StorageLevel.DISK_ONLY)
    done["cached"] = cached.count()
    if spill:
        wide = spark.range(0, 200_000, numPartitions=2).select(
            F.concat(F.lit(f"{marker}-spill-"), F.sha2(F.col("id").cast("string"), 256)).alias("text")
        )
        done["spilled"] = (
            wide.repartition(2, "text").sortWithinPartitions("text").select(F.max("text")).count()
        )
        pairs = context.parallelize(range(20_000), 2).map(lambda i: (i % 1000, f"{marker}-python-spill-{i}"))
        done["grouped"] = pairs.groupByKey(2).mapValues(len).count()
    try:
        context.parallelize([1], 1).map(
            lambda _: (_ for _ in ()).throw(ValueError(f"{marker}-exception"))
        ).collect()
    except Exception as error:
        done["exception"] = f"{marker}-exception" in str(error)
    frame.createOrReplaceTempView("seen")
    query = f"select count(*) from seen where text != '{marker}-query'"  # noqa: S608
    done["sql"] = spark.sql(query).collect()[0][0]
    if table is not None:
        frame.write.mode("overwrite").option("compression", "none").parquet(table)
        done["table"] = spark.read.parquet(table).count()
    done["executors"] = len({h.host() for h in context._jsc.sc().statusTracker().getExecutorInfos()})
    if ready is not None:
        # What the job left in files is looked for now: they are removed when it ends.
        Path(ready).touch()
        while not Path(go).exists():
            time.sleep(0.1)
    return done


def written(spark, marker, path):
    """Write a table and read it again."""
    from pyspark.sql import functions as F  # noqa: N812

    frame = spark.range(100).select(
        F.concat(F.lit(f"{marker}-table-"), F.col("id").cast("string")).alias("text")
    )
    frame.write.mode("overwrite").option("compression", "none").parquet(path)
    return spark.read.parquet(path).count()


def slow(spark, seconds=20, tasks=8, flag=""):
    """A job that is under way for a while; touches `flag` when its first task runs."""

    def work(i):
        import time
        from pathlib import Path

        Path(f"{flag}.{i}").touch()
        time.sleep(seconds / tasks)
        return i

    return sum(spark.sparkContext.parallelize(range(tasks), tasks).map(work).collect())


def slow_write(spark, path, flag, tasks=4):
    """Write a table and never get ready; touches `flag` with each task."""

    def work(i):
        import time
        from pathlib import Path

        Path(f"{flag}.{i}").touch()
        time.sleep(1 if i < 2 else 600)  # some parts are complete, and nothing else
        return (i, "x" * 1000)

    rows = spark.sparkContext.parallelize(range(tasks), tasks).map(work)
    spark.createDataFrame(rows, "a long, b string").write.parquet(path)


def readable(spark, path):
    """Say what reading a table gives: a number of rows, or a sentence."""
    try:
        return spark.read.parquet(path).count()
    except Exception as error:
        return str(error).splitlines()[0]


def sealed_sums(spark, table, write=False):
    """SQL and DataFrames on a sealed Parquet table, so that columns, filters, shuffles and joins are used."""
    from pyspark.sql import functions as F  # noqa: N812

    if write:
        made = spark.range(20_000, numPartitions=2).select(
            "id",
            (F.col("id") % 13).alias("k"),
            F.concat(F.lit("text-"), F.col("id") * 7 % 1000).alias("text"),
            (F.col("id") / 3).alias("x"),
        )
        made.write.mode("overwrite").parquet(table)
    frame = spark.read.parquet(table)
    frame.createOrReplaceTempView("t")
    grouped = spark.sql(
        "select k, count(*) n, sum(id) s, max(text) m, round(avg(x), 6) a from t where id > 100 group by k"
    )
    joined = grouped.join(frame.filter("text = 'text-7'").select("k", "id"), "k").orderBy("k", "id")
    return [list(row) for row in grouped.orderBy("k").collect()] + [list(row) for row in joined.collect()]


def python_function(spark, count=10):
    """A job whose executors need Python."""
    return spark.sparkContext.parallelize(range(count), 2).map(lambda x: x * x).sum()


def executor_started(spark):
    """A job small enough to be mostly the start of an executor."""
    return spark.range(1000, numPartitions=2).selectExpr("sum(id)").collect()[0][0]
