"""PySpark's bundled Python examples run unmodified, and print what they print on plain Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bundled_examples
import pytest
from notebook_of_a_test import Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("spark")]

RUN = [name for name in bundled_examples.names() if name not in bundled_examples.LEFT_OUT]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("examples")
    bundled_examples.prepare(made)
    return made


@pytest.fixture(scope="module")
def plain(directory: Path) -> dict[str, str]:
    """What stock Spark prints, in a process that knows nothing of sealbook."""
    done = subprocess.run(
        [sys.executable, bundled_examples.__file__, "plain.json"],
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads((directory / "plain.json").read_text()))


@pytest.fixture(scope="module")
def trusted(directory: Path, kernel_name: str) -> dict[str, str]:
    """What they print in a cell."""
    notebook = Notebook(kernel_name, directory)
    try:
        code = (
            "import importlib.util, json\n"
            f"spec = importlib.util.spec_from_file_location('examples_', {bundled_examples.__file__!r})\n"
            "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
            f"open('trusted.json', 'w').write(json.dumps(module.run_all({RUN!r})))"
        )
        _, error = notebook.run(code, timeout=1000)
        assert not error
    finally:
        notebook.close()
    return dict(json.loads((directory / "trusted.json").read_text()))


def test_what_is_left_out_is_there() -> None:
    assert set(bundled_examples.LEFT_OUT) < set(bundled_examples.names())
    assert len(RUN) > 120


@pytest.mark.parametrize("name", RUN)
def test_an_example_prints_what_it_prints_on_plain_spark(
    name: str, plain: dict[str, str], trusted: dict[str, str]
) -> None:
    assert not plain[name].startswith(("failed:", "ended with status"))
    assert not trusted[name].startswith(("failed:", "ended with status"))
    if name in bundled_examples.RANDOM:
        assert bool(trusted[name].strip()) == bool(plain[name].strip())
        return
    assert bundled_examples.rounded(trusted[name]) == bundled_examples.rounded(plain[name])
