"""JupyterLab and Notebook 7 with the built extension, in Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, BrowserContext, Page

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "jupyter"))
sys.path.insert(0, str(Path(__file__).parents[1] / "spark"))
from jupyter_server_process import JupyterServer, jupyterlab
from pages import BUILT, PANEL, REFUSING, Notebook

from sealbook.jupyter.kernelspec import SIMULATED


@pytest.fixture(scope="session")
def built_extension() -> Path:
    assert (BUILT / "package.json").is_file(), "The JupyterLab extension is not built: run .ci/extension."
    linked = Path(sys.prefix) / "share/jupyter/labextensions/sealbook"
    assert linked.resolve() == BUILT, f"JupyterLab would not show {BUILT}: run .ci/extension."
    return BUILT


@pytest.fixture(scope="session")
def refusing_kernel(kernel_name: str, policy_file: Path) -> Iterator[str]:
    """A kernel whose policy admits other code than the code that runs."""
    policy = policy_file.with_name("refusing.toml")
    policy.write_text(
        re.sub(r'mrenclave = \["[0-9a-f]{64}"\]', f'mrenclave = ["{"ab" * 32}"]', policy_file.read_text())
    )
    kernels = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels"
    shutil.copytree(kernels / kernel_name, kernels / REFUSING)
    spec = json.loads((kernels / REFUSING / "kernel.json").read_text())
    spec["metadata"]["kernel_provisioner"]["config"]["policy"] = str(policy)
    (kernels / REFUSING / "kernel.json").write_text(json.dumps(spec))
    yield REFUSING
    shutil.rmtree(kernels / REFUSING)
    policy.unlink()


@pytest.fixture(scope="session")
def lab(
    kernel_name: str,
    refusing_kernel: str,
    keys: str,
    built_extension: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[JupyterServer]:
    """JupyterLab; its server has the double of a verdict beside the real endpoints."""
    root = tmp_path_factory.mktemp("lab") / "root"
    root.mkdir()
    here = str(Path(__file__).parent)
    with jupyterlab(root, extension="double_of_a_verdict", passphrase=keys, PYTHONPATH=here) as server:
        yield server


@pytest.fixture(scope="module")
def context(browser: Browser) -> BrowserContext:
    return browser.new_context(viewport={"width": 1440, "height": 900})


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture
def open_notebook(page: Page, lab: JupyterServer, request: pytest.FixtureRequest) -> Callable[..., Notebook]:
    """Open a notebook of this test's own, in JupyterLab or in Notebook 7."""

    def opened(
        kernel: str = SIMULATED, *, app: str = "lab/tree", wait: bool = True, name: str = ""
    ) -> Notebook:
        test = re.sub(r"[^a-z0-9_]+", "-", request.node.name.lower())[:60]
        path = f"{name}.ipynb" if name else f"{test}-{kernel}.ipynb"
        book = new_notebook(cells=[new_code_cell("print(6 * 7)")])
        book.metadata["kernelspec"] = {"name": kernel, "display_name": "x", "language": "python"}
        nbformat.write(book, lab.root / path)
        reset = "&reset" if app.startswith("lab") else ""
        page.goto(f"{lab.address}/{app}/{path}?token={lab.token}{reset}")
        page.locator(".jp-NotebookPanel-toolbar .sealbook-Indicator").wait_for(timeout=60_000)
        notebook = Notebook(page, lab, path)
        if wait:
            notebook.expect({SIMULATED: "Simulated", REFUSING: "Refused"}.get(kernel, "Not attested"))
        return notebook

    yield opened
    for session in lab.get("api/sessions"):
        lab.request("DELETE", f"api/sessions/{session['id']}")


@pytest.fixture
def panel(open_notebook: Callable[..., Notebook], page: Page) -> Notebook:
    """A notebook on the simulated kernel with the panel beside it."""
    notebook = open_notebook(name="study")
    notebook.command("application:toggle-left-area")
    notebook.command("sealbook:open-panel")
    page.locator(f"{PANEL} [data-section=identity]").wait_for()
    return notebook
