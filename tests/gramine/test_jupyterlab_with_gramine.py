"""JupyterLab in a real browser, with a kernel in Gramine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "jupyter"))
from jupyter_server_process import JupyterServer, jupyterlab
from test_browser import run_first_cell, screenshot, write_notebooks

from sealbook.image import Image


@pytest.fixture(scope="module")
def lab(installed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """JupyterLab with a kernel in Gramine."""
    root = tmp_path_factory.mktemp("lab") / "root"
    root.mkdir()
    write_notebooks(root, installed)
    with jupyterlab(root) as server:
        yield server


def test_it_runs_and_survives_a_crash(browser: Browser, lab: JupyterServer) -> None:
    page = browser.new_page()
    page.goto(f"{lab.address}/lab/tree/lab.ipynb?token={lab.token}&reset")
    expect(page.get_by_text("Gramine without SGX, not attested").first).to_be_visible(timeout=60_000)
    assert "42" in run_first_cell(page)
    screenshot(page, "gramine")

    page.locator(".jp-Cell .cm-content").last.click()
    page.keyboard.type("os._exit(1)")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_text("Kernel Restarting").first).to_be_visible(timeout=60_000)
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    assert "42" in run_first_cell(page, when=("idle", "starting"))
    page.close()


def test_a_changed_image_is_said_in_a_dialog(
    browser: Browser, lab: JupyterServer, image: Image, request: pytest.FixtureRequest
) -> None:
    changed = image.path / "root/bin/true"
    before = changed.read_bytes()
    changed.chmod(0o755)
    changed.write_bytes(before + b"\0")
    request.addfinalizer(lambda: changed.write_bytes(before))
    page = browser.new_page()
    page.goto(f"{lab.address}/lab/tree/nb.ipynb?token={lab.token}&reset")
    expect(page.get_by_text("has another content since the image was built").first).to_be_visible(
        timeout=60_000
    )
    screenshot(page, "gramine-changed")
    page.close()
