"""The work that the first notebooks do, in Gramine: an image with all layers, minutes to build and to run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from helpers import kernel, run

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))
from test_notebooks import NOTEBOOKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("name", ["01-quickstart.ipynb", "02-what-attestation-proves.ipynb"])
def test_a_notebook_of_the_first_issue_runs_unchanged(name: str, full_kernel: str, tmp_path: Path) -> None:
    papermill.execute_notebook(
        NOTEBOOKS / name, tmp_path / name, kernel_name=full_kernel, cwd=str(tmp_path), progress_bar=False
    )
    notebook = nbformat.read(tmp_path / name, as_version=4)
    errors = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert not errors


def test_pictures_tables_and_time_zones_work_and_a_big_process_makes_others(
    full_kernel: str, tmp_path: Path
) -> None:
    with kernel(full_kernel, cwd=str(tmp_path)) as (_, client):
        run(client, "import pandas as pd; pd.DataFrame({'a': [1]}).to_parquet('t.parquet')")
        assert run(client, "pd.read_parquet('t.parquet').a.sum()").result == "np.int64(1)"
        # pytz reads the older form of zone files only: with the newer one it would say UTC and no more.
        code = "pd.Timestamp('2020-01-01', tz='Europe/Berlin').strftime('%z')"
        assert run(client, code).result == "'+0100'"
        ran = run(client, "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
        assert "Figure" in ran.text
        assert ran.error is None
        # With Pillow's libXau loaded: see sealbook.image.elf.
        text = run(client, "!echo a child").text
        if int(Path("/proc/sys/vm/max_map_count").read_text()) < 1 << 20:
            assert "sysctl -w vm.max_map_count" in text
        else:
            assert text == "a child\n"


def test_numpy_is_interrupted(full_kernel: str) -> None:
    with kernel(full_kernel) as (manager, client):
        run(client, "import numpy as np; a = np.ones((500, 500))")
        client.execute("while True: a = a @ a; a /= a.max()")
        time.sleep(2)
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"
