"""JupyterLab and Notebook 7 in a real browser, on the attested kernel."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from helpers import wait_until
from jupyter_server_process import JupyterServer
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.xdist_group("browser")


def write_notebooks(root: Path, kernel_name: str) -> None:
    """Write what the tests open."""
    book = new_notebook(cells=[new_code_cell("import os\nprint('pid', os.getpid(), 6 * 7)")])
    book.metadata["kernelspec"] = {"name": kernel_name, "display_name": "x", "language": "python"}
    for name in ("lab", "nb"):
        nbformat.write(book, root / f"{name}.ipynb")


@pytest.fixture(autouse=True, scope="module")
def notebooks(lab: JupyterServer, kernel_name: str) -> None:
    write_notebooks(lab.root, kernel_name)


def first_output(page: Page) -> str:
    output = page.locator(".jp-OutputArea-output").first
    expect(output).to_contain_text("42", timeout=60_000)
    return output.inner_text()


def run_first_cell(page: Page, *, when: tuple[str, ...] = ("idle",)) -> str:
    # A cell that is run before there is a kernel is not run at all.
    ready = ", ".join(f'.jp-Notebook-ExecutionIndicator[data-status="{status}"]' for status in when)
    # Beside a long name of a kernel there is no room for it in the toolbar.
    page.locator(ready).first.wait_for(state="attached", timeout=60_000)
    page.locator(".jp-Cell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    return first_output(page)


def screenshot(page: Page, name: str) -> None:
    """Keep a picture where someone asked for one."""
    if folder := os.environ.get("SEALBOOK_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_jupyterlab_runs_restarts_and_survives_a_crash(browser: Browser, lab: JupyterServer) -> None:
    page = browser.new_page()
    page.goto(f"{lab.address}/lab/tree/lab.ipynb?token={lab.token}&reset")
    expect(page.get_by_text("sealbook, simulated enclave").first).to_be_visible(timeout=60_000)
    first = run_first_cell(page)
    screenshot(page, "lab")

    page.get_by_role("menuitem", name="Kernel").first.click()
    page.get_by_text("Restart Kernel and Clear Outputs of All Cells").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    expect(page.locator(".jp-OutputArea-output")).to_have_count(0, timeout=30_000)
    second = run_first_cell(page)
    assert first != second

    page.locator(".jp-Cell .cm-content").last.click()
    page.keyboard.type("os._exit(1)")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_text("Kernel Restarting").first).to_be_visible(timeout=60_000)
    screenshot(page, "crashed")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    # Stock jupyter_server shows a kernel that died while busy as starting until it runs something.
    run_first_cell(page, when=("idle", "starting"))
    assert wait_until(lambda: first_output(page) not in (first, second))
    page.close()


def test_notebook_7_runs_the_kernel(browser: Browser, lab: JupyterServer) -> None:
    page = browser.new_page()
    page.goto(f"{lab.address}/notebooks/nb.ipynb?token={lab.token}")
    expect(page.get_by_text("sealbook, simulated enclave").first).to_be_visible(timeout=60_000)
    assert "42" in run_first_cell(page)
    screenshot(page, "notebook")
    page.close()
