"""Runs the Python examples that are bundled with PySpark, unmodified, and returns what they print.

As a program, ``python bundled_examples.py DESCRIPTOR``, it is stock Spark in the current directory and runs
what it is told over that connection; a cell of a notebook calls :func:`run_one` instead. It needs nothing of
sealbook.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import runpy
import sys
from multiprocessing.connection import Connection
from pathlib import Path

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
        # Java chooses the seed.
        "mllib/gaussian_mixture_example.py",
        "mllib/k_means_example.py",
        "mllib/kmeans.py",
        "mllib/latent_dirichlet_allocation_example.py",
        "mllib/random_rdd_generation.py",
        "mllib/ranking_metrics_example.py",
        "mllib/recommendation_example.py",
        "mllib/sampled_rdds.py",
        "mllib/stratified_sampling_example.py",
        "mllib/streaming_k_means_example.py",
        "mllib/word2vec.py",
        "mllib/word2vec_example.py",
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
    # It has two jobs for each feature: ten of them, or 692, say no more than one.
    "mllib/correlations.py": "data/mllib/sample_isotonic_regression_libsvm_data.txt",
    "mllib/gaussian_mixture_model.py": "mixture.txt 2 --maxIterations 5",
    "mllib/kmeans.py": "data/mllib/kmeans_data.txt 2",
    "mllib/logistic_regression.py": "points.txt 3",
    "mllib/word2vec.py": "words.txt",
}

#: What both sides have: with Spark's defaults, most of the time goes into tasks without data.
SETTINGS = {"spark.default.parallelism": "2", "spark.sql.shuffle.partitions": "2"}

SEED = 17

_NUMBER = re.compile(r"-?\d+(?:\.\d+(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")

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
    (directory / "words.txt").write_text("a b c d e china g a b c a b\n" * 50)
    mixture = (home / "data/mllib/gmm_data.txt").read_text().splitlines()
    (directory / "mixture.txt").write_text("".join(" ".join(line.split()) + "\n" for line in mixture))
    points = "".join(f"{i % 2} " + " ".join(str(i * j % 7) for j in range(10)) + "\n" for i in range(40))
    (directory / "points.txt").write_text(points)


def run_one(name: str) -> str:
    """Run one example as a program is run."""
    import pyspark

    path = Path(pyspark.__file__).parent / _EXAMPLES / name
    arguments, place = sys.argv, sys.path[:]
    sys.argv = [str(path), *ARGUMENTS.get(name, "").split()]
    printed = io.StringIO()
    same_chance()
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
        # Many leave that to the end of their process.
        if pyspark.SparkContext._active_spark_context is not None:
            pyspark.SparkContext._active_spark_context.stop()
    return printed.getvalue()


def same_chance() -> None:
    """Let Python choose the same random numbers on both sides.

    PySpark takes them from here where an example names no seed; and its estimators take the hash of their
    class's name, which is another in each process.
    """
    import numpy
    from pyspark.ml.param.shared import HasSeed

    random.seed(SEED)
    numpy.random.seed(SEED)

    def seeded(self: HasSeed) -> None:
        super(HasSeed, self).__init__()
        self._setDefault(seed=SEED)

    HasSeed.__init__ = seeded  # type: ignore[method-assign]


def lines(text: str) -> list[tuple[str, list[float]]]:
    """Return the lines that were printed and the numbers in each, in an order that rounding does not change.

    Numbers are sums, whose last digits depend on the order of tasks; columns are as wide as their widest
    number; and names that are random by intent are one name.
    """
    text = re.sub(r"_[0-9a-f]{12}\b", "_ID", text)  # pyspark.ml.util.Identifiable
    text = re.sub(r"/tmp\w{8}\b", "/TEMPORARY", text)
    text = re.sub(r"[-+]{3,}| *([][|]) *|( ) +", r"\1\2", text)
    found = [(_NUMBER.sub("#", line), list(map(float, _NUMBER.findall(line)))) for line in text.splitlines()]
    return sorted(found, key=lambda line: (line[0], [float(f"{number:.3g}") for number in line[1]]))


def main() -> None:
    """Run as stock Spark: a name comes, and what the example printed goes."""
    settings = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", **SETTINGS}
    options = " ".join(f"--conf {name}={value}" for name, value in settings.items())
    # The quick compiler alone, as no example runs for long; it needs more stack for the lineages of ALS.
    options += " --driver-java-options '-XX:TieredStopAtLevel=1 -Xss4m'"
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--master local[*] {options} pyspark-shell"
    with Connection(int(sys.argv[1])) as test, contextlib.suppress(EOFError):
        while True:
            printed = run_one(test.recv_bytes().decode())
            assert not [name for name in sys.modules if name.split(".")[0] == "sealbook"]
            test.send_bytes(printed.encode())


if __name__ == "__main__":
    main()
