"""The attestation panel where people meet it: JupyterLab, Notebook 7, and exports without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import requests
from helpers import wait_until
from ipywidgets import Widget
from jupyter_server_process import JupyterServer, jupyter_server
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import Browser, Page, expect
from test_browser import screenshot

from sealbook.jupyter.panel.live import LiveBar

pytestmark = pytest.mark.xdist_group("browser")

CELLS = ("import sealbook\nsealbook.AttestationPanel()", "%attest")
BADGE = "Simulated enclave: no hardware protects it"
#: The static form, not the newer one that the bar shows.
WRITTEN = ".sealbook-panel:not(.sealbook-newer .sealbook-panel)"


def put(lab: JupyterServer, name: str, kernel: str, book: Any = None) -> None:
    book = book or new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    book.metadata["kernelspec"] = {"name": kernel, "display_name": "x", "language": "python"}
    lab.request("PUT", f"api/contents/{name}", json={"type": "notebook", "content": book}).raise_for_status()


def use_theme(lab: JupyterServer, name: str) -> None:
    lab.request(
        "PUT",
        "lab/api/settings/@jupyterlab/apputils-extension:themes",
        json={"raw": json.dumps({"theme": name})},
    ).raise_for_status()


def get(lab: JupyterServer, name: str) -> Any:
    return nbformat.from_dict(lab.get(f"api/contents/{name}")["content"])


def run_first(page: Page) -> None:
    expect(page.get_by_text("sealbook, simulated enclave").filter(visible=True).first).to_be_visible(
        timeout=60_000
    )
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=90_000)
    page.locator(".jp-Cell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".sealbook-panel").first).to_contain_text(BADGE, timeout=60_000)


def attest_again(page: Page) -> None:
    """Press the button and see the static form change with the bar."""
    panel, bar = page.locator(WRITTEN).first, page.locator(".sealbook-live").first
    expect(bar).to_contain_text("Last verified at", timeout=60_000)
    before = panel.inner_text()
    button = page.get_by_role("button", name="Attest again now").first
    button.focus()
    page.keyboard.press("Enter")
    expect(panel).not_to_have_text(before, timeout=60_000, use_inner_text=True)
    expect(panel).to_contain_text(BADGE)
    expect(page.locator(".sealbook-newer .sealbook-panel")).to_have_count(0)


def test_in_jupyterlab_the_panel_is_live_in_light_and_dark_and_outlives_its_kernel(
    browser: Browser,
    lab: JupyterServer,
    kernel_name: str,
) -> None:
    put(lab, "panel.ipynb", kernel_name)
    use_theme(lab, "JupyterLab Light")
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.goto(f"{lab.address}/lab/tree/panel.ipynb?token={lab.token}&reset")
    run_first(page)
    attest_again(page)
    screenshot(page, "panel-lab")
    page.keyboard.press("Control+s")
    assert wait_until(lambda: len(get(lab, "panel.ipynb").cells[0].outputs) == 2)

    # Loaded again while the kernel runs: the bar is there again, in the other theme.
    use_theme(lab, "JupyterLab Dark")
    page.goto(f"{lab.address}/lab/tree/panel.ipynb?token={lab.token}&reset")
    expect(page.locator('body[data-jp-theme-light="false"]')).to_have_count(1, timeout=60_000)
    written = page.locator(WRITTEN).first
    expect(written).to_contain_text(BADGE, timeout=60_000)
    # The output that was loaded does not follow the kernel any more, so the bar shows the newer one.
    page.get_by_role("button", name="Attest again now").first.click(timeout=60_000)
    expect(page.locator(".sealbook-newer .sealbook-panel").first).to_contain_text(BADGE, timeout=60_000)
    assert page.locator(".sealbook-newer .sealbook-panel").first.inner_text() != written.inner_text()
    screenshot(page, "panel-lab-dark")

    # Opened again without its kernel: the button is gone, the facts are not.
    page.get_by_role("menuitem", name="Kernel").first.click()
    page.get_by_text("Shut Down Kernel", exact=True).click()
    page.goto(f"{lab.address}/lab/tree/panel.ipynb?token={lab.token}&reset")
    again = page.locator(WRITTEN).first
    expect(again).to_contain_text("This was written at", timeout=60_000)
    expect(again).to_contain_text("Chain of trust")
    page.close()
    saved = get(lab, "panel.ipynb")
    outputs = saved.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in outputs[0].data
    assert set(outputs[1].data) == {"text/html", "text/plain"}


def live_bar(lab: JupyterServer, browser: Browser, name: str, kernel: str) -> Page:
    """Open a notebook in JupyterLab and show a panel that says until when it holds."""
    put(lab, name, kernel)
    use_theme(lab, "JupyterLab Light")
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.goto(f"{lab.address}/lab/tree/{name}?token={lab.token}&reset")
    run_first(page)
    expect(page.locator(".sealbook-live").first).to_contain_text("Holds until", timeout=60_000)
    return page


def type_and_run(page: Page, code: str) -> None:
    page.locator(".jp-Cell .cm-content").nth(1).click()
    page.keyboard.press("Control+a")
    page.keyboard.type(code)
    page.keyboard.press("Shift+Enter")


def restart_elsewhere(page: Page, lab: JupyterServer) -> requests.Response:
    """Ask the server as another page would."""
    (kernel,) = [one["kernel"]["id"] for one in lab.get("api/sessions") if f"/{one['path']}" in page.url]
    return lab.post(f"api/kernels/{kernel}/restart")


def restart_is_refused(page: Page, lab: JupyterServer, policy: Path) -> None:
    """Somebody restarts it elsewhere, under a policy that does not admit it any more."""
    before = policy.read_text()
    policy.write_text(re.sub(r'mrenclave = \["[0-9a-f]{64}"\]', f'mrenclave = ["{"ab" * 32}"]', before))
    try:
        assert restart_elsewhere(page, lab).status_code == 500
    finally:
        policy.write_text(before)


def dies(page: Page, lab: JupyterServer, policy: Path) -> None:
    type_and_run(page, "import os; os._exit(1)")


def is_shut_down(page: Page, lab: JupyterServer, policy: Path) -> None:
    page.get_by_role("menuitem", name="Kernel").first.click()
    page.get_by_text("Shut Down Kernel", exact=True).click()


def is_restarted(page: Page, lab: JupyterServer, policy: Path) -> None:
    page.get_by_role("menuitem", name="Kernel").first.click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()


@pytest.mark.parametrize("end", [restart_is_refused, dies, is_shut_down, is_restarted])
def test_the_bar_of_a_kernel_that_has_ended_says_so_and_has_no_button(
    browser: Browser,
    lab: JupyterServer,
    kernel_name: str,
    policy_file: Path,
    end: Callable[[Page, JupyterServer, Path], None],
) -> None:
    page = live_bar(lab, browser, f"{end.__name__}.ipynb", kernel_name)
    bar, button = page.locator(".sealbook-live").first, page.locator(".sealbook-live + button").first
    expect(button).to_be_enabled()
    screenshot(page, "bar")
    end(page, lab, policy_file)
    expect(bar).to_contain_text("The kernel of this panel has ended", timeout=30_000)
    expect(bar).not_to_contain_text("Holds until")
    expect(bar).not_to_contain_text("Simulated")
    expect(button).to_be_disabled()
    screenshot(page, f"bar-{end.__name__}")
    # Nothing that comes later makes it current again.
    page.wait_for_timeout(3000)
    expect(bar).to_contain_text("The kernel of this panel has ended")
    page.close()


def test_a_bar_that_was_saved_with_its_notebook_has_no_kernel_either(
    browser: Browser,
    lab: JupyterServer,
    kernel_name: str,
) -> None:
    bar = LiveBar(lambda: None)
    bar.badge, bar.state, bar.line = f"\u25c7 {BADGE}", "simulated", "Holds until 2199-01-01 00:00:00 UTC."
    kind = "application/vnd.jupyter.widget-view+json"
    view = {"model_id": bar.model_id, "version_major": 2, "version_minor": 0}
    book = new_notebook(cells=[new_code_cell("pass", outputs=[new_output("display_data", {kind: view})])])
    book.metadata["kernelspec"] = {"name": kernel_name, "display_name": "x", "language": "python"}
    state = Widget.get_manager_state(widgets=[bar, bar.layout])
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    put(lab, "saved.ipynb", kernel_name, book)
    lab.post("api/contents/saved.ipynb/trust").raise_for_status()
    page = browser.new_page()
    page.goto(f"{lab.address}/lab/tree/saved.ipynb?token={lab.token}&reset")
    expect(page.locator(".sealbook-live")).to_contain_text("has ended", timeout=60_000)
    expect(page.locator(".sealbook-live")).not_to_contain_text("Holds until")
    expect(page.locator(".sealbook-live + button")).to_be_disabled()
    page.close()


def test_the_browsers_own_clock_ends_the_verdict(
    browser: Browser,
    lab: JupyterServer,
    kernel_name: str,
) -> None:
    page = live_bar(lab, browser, "clock.ipynb", kernel_name)
    bar = page.locator(".sealbook-live").first
    said = bar.inner_text()
    until = re.search(r"Holds until (\S+ \S+) UTC", said)
    assert until
    # The clock of this page only, put to some seconds before that. The kernel's stands where it stood, so the
    # kernel says nothing.
    page.evaluate(
        """until => {
            const real = Date.now.bind(Date), shift = new Date(until) - real() - 10000;
            Date.now = () => real() + shift;
        }""",
        until.group(1).replace(" ", "T") + "Z",
    )
    page.get_by_role("button", name="Attest again now").first.click()
    expect(bar).not_to_have_text(said, timeout=60_000, use_inner_text=True)
    expect(bar).not_to_contain_text("stale")
    expect(bar.locator("strong")).to_have_text(re.compile(r"\(stale\)$"), timeout=60_000)
    expect(bar).to_contain_text("By this browser's clock that has passed")
    screenshot(page, "bar-stale")
    page.close()


def test_in_notebook_7_the_panel_is_live(
    browser: Browser,
    lab: JupyterServer,
    kernel_name: str,
) -> None:
    put(lab, "panel7.ipynb", kernel_name)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto(f"{lab.address}/notebooks/panel7.ipynb?token={lab.token}")
    run_first(page)
    attest_again(page)
    screenshot(page, "panel-notebook")
    page.close()


def test_in_voila_the_panel_is_live(
    browser: Browser,
    kernel_name: str,
    tmp_path: Path,
) -> None:
    """Voila runs the cells with nobody there, for somebody who looks at them then."""
    root = tmp_path / "root"
    root.mkdir()
    book = new_notebook(cells=[new_code_cell(CELLS[0])])
    book.metadata["kernelspec"] = {"name": kernel_name, "display_name": "x", "language": "python"}
    nbformat.write(book, root / "board.ipynb")
    beside = Path(sys.prefix) / "voila"
    assert beside.is_dir(), "The panel is tried in Voila: run .ci/programs."
    with jupyter_server(
        root,
        extension="voila.server_extension",
        PYTHONPATH=str(beside),
        JUPYTER_PATH=os.pathsep.join((f"{beside}/share/jupyter", f"{sys.prefix}/share/jupyter")),
    ) as server:
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(f"{server.address}/voila/render/board.ipynb?token={server.token}", timeout=90_000)
        panel, bar = page.locator(WRITTEN).first, page.locator(".sealbook-live")
        expect(panel).to_contain_text(BADGE, timeout=60_000)
        expect(bar).to_contain_text("Holds until", timeout=60_000)
        before = bar.inner_text()
        page.get_by_role("button", name="Attest again now").click()
        expect(bar).not_to_have_text(before, timeout=60_000, use_inner_text=True)
        # Nothing updates an output of Voila's: the bar shows the newer form.
        expect(page.locator(".sealbook-newer .sealbook-panel")).to_contain_text(BADGE)
        screenshot(page, "panel-voila")
        page.close()


def export(source: Path) -> Path:
    """Export with nbconvert as it comes: no option, no configuration."""
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", str(source)], check=True, capture_output=True
    )
    return source.with_suffix(".html")


def check_export(browser: Browser, page_file: Path, panels: int) -> None:
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    expect(page.locator(".sealbook-panel")).to_have_count(panels, timeout=30_000)
    for panel in page.locator(".sealbook-panel").all():
        expect(panel).to_be_visible()
        expect(panel).to_contain_text(BADGE)
        expect(panel).to_contain_text("cannot know what came later")
        # Where nothing runs, everything can be opened all the same.
        panel.locator("summary").first.click()
        expect(panel.locator("details").first).to_contain_text("The platform has every update")
    sources = page.locator(".sealbook-panel").evaluate_all(
        "all => all.flatMap(each => [...each.querySelectorAll('[src], [href], script, link')]).length"
    )
    assert sources == 0
    screenshot(page, page_file.stem)
    context.close()


def test_an_export_of_a_papermill_run_shows_the_whole_panel_without_a_network(
    browser: Browser,
    kernel_name: str,
    tmp_path: Path,
) -> None:
    book = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    nbformat.write(book, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "batch.ipynb", kernel_name=kernel_name, progress_bar=False
    )
    executed = nbformat.read(tmp_path / "batch.ipynb", as_version=4)
    assert "widgets" not in executed.metadata
    assert [set(each.data) for cell in executed.cells for each in cell.outputs] == [
        {"text/html", "text/plain"},
        {"text/html", "text/plain"},
    ]
    check_export(browser, export(tmp_path / "batch.ipynb"), 2)


def test_an_export_of_a_live_notebook_shows_it_too_with_and_without_widget_state(
    browser: Browser,
    kernel_name: str,
    tmp_path: Path,
) -> None:
    # As JupyterLab runs a cell; nbclient keeps the state of widgets as a person can ask Lab to.
    book = new_notebook(cells=[new_code_cell("import sealbook\nsealbook.AttestationPanel(live=True)")])
    nbformat.write(book, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "state.ipynb", kernel_name=kernel_name, progress_bar=False
    )
    executed = nbformat.read(tmp_path / "state.ipynb", as_version=4)
    assert executed.metadata.widgets
    check_export(browser, export(tmp_path / "state.ipynb"), 1)
    del executed.metadata["widgets"]
    nbformat.write(executed, tmp_path / "stateless.ipynb")
    check_export(browser, export(tmp_path / "stateless.ipynb"), 1)
