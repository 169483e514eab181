"""JupyterLab in a real browser, with a kernel in Gramine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "jupyter"))
import test_browser
from test_browser import run_first_cell, screenshot

from sealbook.image import Image

browser, lab = test_browser.browser, test_browser.lab


@pytest.fixture(scope="module")
def kernel_name(installed: str) -> str:
    """What `lab` opens its notebooks with."""
    return installed


def test_it_runs_and_survives_a_crash(browser: Browser, lab: tuple[str, str]) -> None:
    address, token = lab
    page = browser.new_page()
    page.goto(f"{address}/lab/tree/lab.ipynb?token={token}&reset")
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
    browser: Browser, lab: tuple[str, str], image: Image, request: pytest.FixtureRequest
) -> None:
    address, token = lab
    changed = image.path / "root/bin/true"
    before = changed.read_bytes()
    changed.chmod(0o755)
    changed.write_bytes(before + b"\0")
    request.addfinalizer(lambda: changed.write_bytes(before))
    page = browser.new_page()
    page.goto(f"{address}/lab/tree/nb.ipynb?token={token}&reset")
    expect(page.get_by_text("has another content since the image was built").first).to_be_visible(
        timeout=60_000
    )
    screenshot(page, "gramine-changed")
    page.close()
