"""Runs the Python examples that are bundled with PySpark, unmodified, and returns what they print.

As a program, ``python bundled_examples.py ANSWER [NAME ...]``, it is stock Spark in the current directory; a
cell of a notebook calls :func:`run_all` instead. It needs nothing of sealbook.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Example -> why it does not run here; the rest does.
LEFT_OUT = {
    "avro_inputformat.py": "needs the jar of Spark's Scala examples, which the package does not have",
    "parquet_inputformat.py": "needs the jar of Spark's Scala examples, which the package does not have",
    "sql/datasource.py": "reads files and needs a connector (Avro) that the package does not have",
    "sql/hive.py": "reads a file of examples/src/main/resources, which the package does not have",
    "sql/jdbc.py": "needs a database and its driver",
    "sql/streaming/structured_blockchain_admission_control.py": "listens for a stream for ever",
    "sql/streaming/structured_kafka_wordcount.py": "needs Kafka, and its connector",
    "sql/streaming/structured_network_wordcount.py": "reads a socket for ever",
    "sql/streaming/structured_network_wordcount_session_window.py": "reads a socket for ever",
    "sql/streaming/structured_network_wordcount_windowed.py": "reads a socket for ever",
    "sql/streaming/structured_sessionization.py": "reads a socket for ever",
    "streaming/hdfs_wordcount.py": "watches a directory for ever",
    "streaming/network_wordcount.py": "reads a socket for ever",
    "streaming/network_wordjoinsentiments.py": "reads a socket for ever",
    "streaming/recoverable_network_wordcount.py": "reads a socket for ever",
    "streaming/sql_network_wordcount.py": "reads a socket for ever",
    "streaming/stateful_network_wordcount.py": "reads a socket for ever",
    "mllib/streaming_linear_regression_example.py": "watches a directory for ever",
}

#: Those whose output is random or a time, on plain Spark too: that they run to their end is all to see.
RANDOM = frozenset(
    {
        "pi.py",
        "status_api_demo.py",
        "mllib/random_rdd_generation.py",
        "mllib/sampled_rdds.py",
        "mllib/stratified_sampling_example.py",
        "mllib/streaming_k_means_example.py",
        "streaming/queue_stream.py",
    }
)

#: What those that want arguments are given.
ARGUMENTS = {
    "als.py": "20 50 5 3 2",
    "kmeans.py": "data/mllib/kmeans_data.txt 2 0.1",
    "logistic_regression.py": "points.txt 3",
    "pagerank.py": "data/mllib/pagerank_data.txt 3",
    "sort.py": "numbers.txt",
    "wordcount.py": "text.txt",
    "mllib/correlations.py": "data/mllib/sample_binary_classification_data.txt",
    "mllib/kmeans.py": "data/mllib/kmeans_data.txt 2",
    "mllib/logistic_regression.py": "points.txt 3",
    "mllib/word2vec.py": "words.txt",
}

_EXAMPLES = "examples/src/main/python"


def names() -> list[str]:
    """Return every example in the package, those that are left out too."""
    import pyspark

    root = Path(pyspark.__file__).parent / _EXAMPLES
    found = (path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return sorted(name for name in found if not name.endswith("__init__.py"))


def prepare(directory: Path) -> None:
    """Make of `directory` what Spark's own directory is to the examples."""
    import pyspark

    home = Path(pyspark.__file__).parent
    (directory / "data").symlink_to(home / "data")
    resources = directory / "examples/src/main/resources"
    resources.mkdir(parents=True)
    (resources / "people.json").write_text(
        '{"name":"Michael"}\n{"name":"Andy", "age":30}\n{"name":"Justin", "age":19}\n'
    )
    (resources / "people.txt").write_text("Michael, 29\nAndy, 30\nJustin, 19\n")
    (directory / "text.txt").write_text("to be or not to be\n")
    (directory / "numbers.txt").write_text("3 1 2 30 7\n")
    (directory / "words.txt").write_text("a b c d e f g a b c a b\n" * 50)
    points = "".join(f"{i % 2} " + " ".join(str(i * j % 7) for j in range(10)) + "\n" for i in range(40))
    (directory / "points.txt").write_text(points)


def run_all(wanted: Iterable[str]) -> dict[str, str]:
    """Run examples one after the other; returns what each printed, or how it ended otherwise."""
    return {name: run_one(name) for name in wanted}


def run_one(name: str) -> str:
    """Run one example as a program is run."""
    import pyspark

    path = Path(pyspark.__file__).parent / _EXAMPLES / name
    arguments, place = sys.argv, sys.path[:]
    sys.argv = [str(path), *ARGUMENTS.get(name, "").split()]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            return f"ended with status {ended.code}"
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"
    finally:
        sys.argv, sys.path[:] = arguments, place
    return printed.getvalue()


def rounded(text: str) -> list[str]:
    """Return lines for comparison: numbers are sums, and their last digits depend on the order of tasks."""

    def shorter(found: re.Match[str]) -> str:
        return f"{float(found[0]):.3g}"

    # Columns are as wide as their widest number.
    text = re.sub(r"-?\d+\.\d+(?:[eE]-?\d+)?", shorter, text)
    return sorted(re.sub(r"[-+]{3,}|[ ]+", " ", line) for line in text.splitlines())


def main() -> None:
    """Run as stock Spark."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = (
        "--master local[2] --conf spark.ui.enabled=false --conf spark.ui.showConsoleProgress=false "
        "pyspark-shell"
    )
    wanted = sys.argv[2:] or [name for name in names() if name not in LEFT_OUT]
    answer: dict[str, Any] = run_all(wanted)
    assert not [name for name in sys.modules if name.split(".")[0] == "sealbook"]
    Path(sys.argv[1]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
