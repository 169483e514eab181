"""JupyterLab and Notebook 7 with the built extension, in Chromium."""

# ruff: noqa: E501 - scripts of pages

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "jupyter"))
sys.path.insert(0, str(Path(__file__).parents[1] / "spark"))
from helpers import wait_until
from jupyter_server_process import JupyterServer
from pages import BUILT, PASSPHRASE, REFUSING, Notebook

from sealbook.broker import open_keyring
from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over
from sealbook.jupyter.kernelspec import SIMULATED


@pytest.fixture(scope="session")
def built_extension() -> Path:
    assert (BUILT / "package.json").is_file(), "The JupyterLab extension is not built: run .ci/extension."
    linked = Path(sys.prefix) / "share/jupyter/labextensions/sealbook"
    assert linked.resolve() == BUILT, f"JupyterLab would not show {BUILT}: run .ci/extension."
    return BUILT


# Of a module, not of the session: Playwright has an event loop run in this thread, in which no other test could
# run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "The browser tests need chromium: run `sudo apt-get install chromium`, or .ci/programs."
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
            ],
        )


@pytest.fixture(scope="session")
def keys(policy_file: Path) -> None:
    """The user's keys: two without a guard, one that demands attestation."""
    ring = open_keyring(passphrase=lambda: PASSPHRASE)
    have = {record.name for record in ring.list()}
    for name, guard in (("letters", "none"), ("more/letters", "none"), ("patients", "simulated")):
        if name not in have:
            ring.create(name, guard=guard)


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
    keys: None,
    built_extension: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[JupyterServer]:
    """JupyterLab, with Notebook 7 beside it; its server has the double of a verdict beside the real endpoints."""
    root = tmp_path_factory.mktemp("lab") / "root"
    root.mkdir()
    log = root.with_name("log")
    settings = root.with_name("settings")
    quiet = settings / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )  # no question in front of what is looked at
    descriptor, named = hand_over(PASSPHRASE)
    token = "browser-test"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            "--port=0",
            "--no-browser",
            "--allow-root",
            f"--ServerApp.root_dir={root}",
            "--ServerApp.jpserver_extensions={'double_of_a_verdict': True}",
            "--expose-app-in-browser",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ],
        env=os.environ
        | {
            "JUPYTER_TOKEN": token,
            DESCRIPTOR_VARIABLE: named,
            "PYTHONPATH": str(Path(__file__).parent),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
        },
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        pass_fds=[descriptor],
    )
    os.close(descriptor)
    info = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{process.pid}.json"
    assert wait_until(lambda: info.exists() and info.read_text().strip(), seconds=60), log.read_text()
    yield JupyterServer(f"http://127.0.0.1:{json.loads(info.read_text())['port']}", token, root, log)
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:  # it does not end while it has a kernel whose start failed
        process.kill()
        process.wait()


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
