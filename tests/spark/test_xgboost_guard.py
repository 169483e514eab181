"""XGBoost on Spark in the kernel: one worker and no socket, or a sentence and nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_of_a_test import Notebook

DATA = """
import os
from xgboost.callback import TrainingCallback
from xgboost.spark import SparkXGBClassifier, SparkXGBRegressor
from pyspark.ml.feature import VectorAssembler

def look(path):
    class Look(TrainingCallback):
        "Runs in the worker, and writes down which sockets its process has."
        def after_iteration(self, model, epoch, log):
            import psutil
            found = [f"{c.laddr} {c.status}" for c in psutil.Process().net_connections("inet")]
            with open(path, "a") as file:
                file.write(f"iteration {found}\\n")
            return False
    return Look()

rows = spark.range(200).selectExpr("id", "id % 5 as other", "cast(id >= 100 as double) label")
data = VectorAssembler(inputCols=["id", "other"], outputCol="features").transform(rows)
"""


@pytest.fixture(scope="module")
def notebook(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    started = Notebook(kernel_name, tmp_path_factory.mktemp("notebook"))
    _, error = started.run(DATA)
    assert not error
    yield started
    started.close()


def test_one_worker_trains_and_opens_no_socket(notebook: Notebook, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    fit = (
        f"callbacks = [look({str(seen)!r})]\n"
        "model = SparkXGBClassifier(num_workers=1, n_estimators=3, callbacks=callbacks).fit(data)"
    )
    assert notebook.value("model.transform(data).where('prediction = label').count()", fit) == "200"
    assert seen.read_text().splitlines() == ["iteration []"] * 3


@pytest.mark.parametrize("estimator", ["SparkXGBClassifier", "SparkXGBRegressor"])
@pytest.mark.parametrize("how", ["num_workers=2", "num_workers=2, launch_tracker_on_driver=False"])
def test_more_workers_are_refused_before_anything_starts(
    estimator: str, how: str, notebook: Notebook
) -> None:
    _, error = notebook.run(f"{estimator}({how}, n_estimators=3).fit(data)")
    assert error.startswith("RefusedError: XGBoost was not started: its 2 workers would exchange gradients")
    assert "\n" not in error


def test_a_pipeline_or_a_changed_estimator_does_not_get_around_it(notebook: Notebook) -> None:
    code = (
        "from pyspark.ml import Pipeline\n"
        "changed = SparkXGBClassifier(n_estimators=3)\n"
        "changed.setParams(num_workers=3)\n"
        "Pipeline(stages=[changed]).fit(data)"
    )
    _, error = notebook.run(code)
    assert error.startswith("RefusedError: XGBoost was not started: its 3 workers")
