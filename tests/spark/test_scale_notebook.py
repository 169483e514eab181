"""The notebook about one notebook here and on a cluster, as a new user runs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from scaled import NAME, ScaledUser

from tpch.queries import NOTEBOOK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("spark")]


def execute(directory: Path, kernel_name: str, **parameters: Any) -> str:
    """Run it, and return all that it shows as text."""
    shutil.copy(NOTEBOOK, directory / NOTEBOOK.name)
    papermill.execute_notebook(
        directory / NOTEBOOK.name,
        directory / "executed.ipynb",
        parameters=parameters,
        kernel_name=kernel_name,
        cwd=str(directory),
        engine_name="sealbook",
        progress_bar=False,
    )
    executed = nbformat.read(directory / "executed.ipynb", as_version=4)
    nbformat.validate(executed)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return "\n".join(
        output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
        for output in outputs
    )


def test_it_runs_here_and_on_the_cluster_and_shows_times_and_evidence(
    here: ScaledUser, kernel_name: str, tmp_path: Path
) -> None:
    here.sealbook("keys", "create", "tpch")
    shown = execute(tmp_path, kernel_name, scale_factor=0.01, cluster=NAME)
    assert "Spark runs in this kernel" in shown
    assert f"Spark runs on the cluster '{NAME}'" in shown
    assert shown.count("simulated: no hardware protects it") >= 4
    assert "22 answers in" in shown
    assert "MLlib's decision tree" in shown
    assert "XGBoost: area under the curve" in shown
    assert "XGBoost was not started: its 2 workers" in shown
    sealed = [path for path in (tmp_path / "sealed").rglob("part-*") if path.is_file()]
    assert len(sealed) >= 8
    for path in sealed:
        assert path.read_bytes().startswith(b"SEALBOOK"), path


def test_it_runs_without_a_cluster_too(kernel_name: str, tmp_path: Path) -> None:
    shown = execute(tmp_path, kernel_name, scale_factor=0.001)
    assert "Spark runs in this kernel" in shown
    assert "cluster '" not in shown
    assert "22 answers in" in shown
