"""Runs TPC-H queries for a benchmark as they are asked for, on whichever Spark session it is given.

A driver of a trusted cluster runs it as its job (``tests/spark/driver_program.py``); as a program of its own,
``python query_server.py INSTRUCTIONS``, it is a plain driver of stock PySpark. Each line of standard input is
a JSON object, ``{"query": 1..22, "root": URL}`` or ``{"sum": count}``, answered by one with its seconds.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any


def run(spark: Any, arguments: dict[str, Any]) -> int:
    """Answer until standard input ends; returns how many were answered."""
    queries = _load(Path(arguments["queries"]))
    answered = 0
    shown: str | None = None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "root" in asked and asked["root"] != shown:
            queries.views(spark, asked["root"])
            shown = asked["root"]
        begin = time.perf_counter()
        if "sum" in asked:
            rows = spark.range(asked["sum"]).selectExpr("sum(id)").collect()
        else:
            rows = queries.run(spark, asked["query"])
        print(json.dumps({"seconds": time.perf_counter() - begin, "rows": len(rows)}), flush=True)
        answered += 1
    return answered


def _load(path: Path) -> ModuleType:
    # Not by name: a driver runs isolated, with nothing of the tests on its path.
    spec = importlib.util.spec_from_file_location("queries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run as a plain driver."""
    from pyspark.sql import SparkSession

    told = json.loads(Path(sys.argv[1]).read_text())
    builder = SparkSession.builder.master(told["master"]).appName("plain")
    for key, value in told["settings"].items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    run(spark, told["arguments"])
    spark.stop()


if __name__ == "__main__":
    main()
