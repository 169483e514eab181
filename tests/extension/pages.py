"""A notebook in a page, and what the tests of the extension share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from helpers import wait_until
from jupyter_server_process import JupyterServer
from playwright.sync_api import Page
from shown import Indicator

BUILT = Path(__file__).resolve().parents[2] / "extension/build/labextension"
AXE = BUILT.parents[1] / "node_modules/axe-core/axe.min.js"
#: The side panel.
PANEL = "#sealbook-panel"
#: A kernel whose policy admits other code.
REFUSING = "sealbook-refusing"


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, page: Page, lab: JupyterServer, path: str) -> None:
        self.page = page
        self.path = path
        self._lab = lab
        self.indicator = Indicator(page)

    @property
    def kernel(self) -> str:
        """The id of its kernel, by the server's list."""
        sessions = self._lab.get("api/sessions")
        return next((str(s["kernel"]["id"]) for s in sessions if s["path"] == self.path), "")

    def verdict(self, verdict: str) -> None:
        """Put another verdict in place of the verifier's; see double_of_a_verdict."""
        answer = self._lab.post("double/verdict", kernel=self.kernel, verdict=verdict)
        assert answer.status_code == 200, answer.text

    def expect(self, text: str, *, seconds: float = 60) -> None:
        """Wait until the indicator says `text`."""
        assert wait_until(lambda: self.indicator.text == text, seconds=seconds), self.indicator.look()

    def look_again(self) -> None:
        """Have the page ask the server again, as it does when someone comes back to it."""
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def run(self, code: str, *, wait: bool = True) -> None:
        """Run a cell of this code, and wait for its end."""
        self.page.evaluate(
            """async ([code, wait]) => {
                const panel = window.jupyterapp.shell.currentWidget;
                const model = panel.content.activeCell.model.sharedModel;
                model.setSource(code);
                const done = window.jupyterapp.commands.execute('notebook:run-cell');
                if (wait) { await done; }
            }""",
            [code, wait],
        )

    def command(self, name: str) -> None:
        """Execute a command of JupyterLab's, as its menus do."""
        self.page.evaluate("([name]) => { void window.jupyterapp.commands.execute(name); }", [name])


def screenshot(page: Page, name: str, *, within: str = "", width: int = 1440) -> None:
    """Keep a picture where someone asked for one: scrolled to `within`, and of its left `width`."""
    if folder := os.environ.get("SEALBOOK_SCREENSHOTS"):
        if within:
            page.locator(within).first.evaluate("node => node.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(500)  # until what was opened, scrolled or coloured is drawn
        clip = {"x": 0, "y": 0, "width": width, "height": 900}
        page.screenshot(path=Path(folder) / f"{name}.png", clip=clip)


def violations(page: Page) -> list[Any]:
    """What axe finds in our own elements."""
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=AXE)
    found = page.evaluate(
        """() => axe.run({
            include: [['#sealbook-panel'], ['.sealbook-Indicator']].filter(([s]) => document.querySelector(s))
        })"""
    )
    return [(v["id"], v["help"], [node["html"][:200] for node in v["nodes"]]) for v in found["violations"]]
