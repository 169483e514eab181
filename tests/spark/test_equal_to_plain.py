"""The same answers as stock Spark gives in clear: on sealed tables, here and on the trusted cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notebook_of_a_test import Notebook
from scaled import KEY, NAME, ScaledUser

from tpch import tables
from tpch.queries import QUERIES, TABLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("spark")]

SCALE = 0.01
TPCH = Path(tables.__file__).parent
PLACES = ("local", f"cluster {NAME}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables in clear."""
    directory = tmp_path_factory.mktemp("tpch")
    tables.generate(directory / "plain", SCALE)
    return directory


@pytest.fixture(scope="module")
def plain(data: Path) -> dict[str, Any]:
    """What stock Spark answers, in a process that knows nothing of sealbook, on Parquet in clear."""
    told = {"root": str(data / "plain"), "scale": SCALE, "what": ["queries", "mllib", "xgboost"]}
    done = subprocess.run(
        [sys.executable, str(TPCH / "plain_spark.py"), str(TPCH / "job.py"), json.dumps(told)],
        env={name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK"))}
        | {"PYSPARK_PYTHON": sys.executable},
        cwd=data,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.strip().rpartition("\n")[2]))


@pytest.fixture(scope="module")
def notebook(here: ScaledUser, kernel_name: str, data: Path) -> Iterator[Notebook]:
    """A kernel; it seals the tables itself."""
    started = Notebook(kernel_name, data)
    code = (
        f"for name in {TABLES!r}:\n"
        f"    table = spark.read.parquet(f'file://{data}/plain/{{name}}')\n"
        f"    table.write.parquet(f'sealed://{KEY}{data}/sealed/{{name}}')\n"
    )
    _, error = started.run(code, timeout=300)
    assert not error
    sealed = list((data / "sealed").rglob("part-*.parquet"))
    assert len(sealed) >= len(TABLES)
    for path in sealed:
        assert path.read_bytes().startswith(b"SEALBOOK")
    yield started
    started.close()


@pytest.fixture(scope="module", params=PLACES)
def trusted(request: pytest.FixtureRequest, notebook: Notebook, data: Path) -> dict[str, Any]:
    """What the same job answers in the kernel, here or on the cluster, on the sealed tables."""
    printed, error = notebook.run(f"%scale {request.param}")
    assert not error
    told = {"root": f"sealed://{data}/sealed", "scale": SCALE, "what": ["queries", "mllib", "xgboost"]}
    code = (
        "import importlib.util, json\n"
        f"spec = importlib.util.spec_from_file_location('job', {str(TPCH / 'job.py')!r})\n"
        "job = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(job)\n"
        f"open('answer.json', 'w').write(json.dumps(job.run(spark, {told!r})))\n"
        "print(spark.sparkContext.master)"
    )
    printed, error = notebook.run(code, timeout=1500)
    assert not error
    assert ("spark://" if request.param != "local" else "local[*]") in printed
    return dict(json.loads((data / "answer.json").read_text()))


@pytest.mark.parametrize("number", QUERIES)
def test_every_query_of_tpch_has_the_answer_of_plain_spark(
    number: int, plain: dict[str, Any], trusted: dict[str, Any]
) -> None:
    assert trusted[f"Q{number}"] == plain[f"Q{number}"]
    assert plain[f"Q{number}"]


def test_mllib_learns_the_same(plain: dict[str, Any], trusted: dict[str, Any]) -> None:
    assert trusted["mllib"]["rows"] == plain["mllib"]["rows"] > 5000
    assert trusted["mllib"]["tree"] == plain["mllib"]["tree"]
    assert trusted["mllib"]["logistic"] == pytest.approx(plain["mllib"]["logistic"], rel=1e-9)
    for centre, other in zip(trusted["mllib"]["means"], plain["mllib"]["means"], strict=True):
        assert centre == pytest.approx(other, rel=1e-9)


def test_xgboost_learns_the_same(plain: dict[str, Any], trusted: dict[str, Any]) -> None:
    assert trusted["xgboost"] == plain["xgboost"]
    assert len(plain["xgboost"]["trees"]) == 5
