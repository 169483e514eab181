"""The trust indicator in real pages: what it says in every state, and that it never says what does not count."""

# ruff: noqa: E501 - scripts of pages

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from helpers import wait_until
from jupyter_server_process import JupyterServer
from pages import REFUSING, Notebook, screenshot
from playwright.sync_api import Page
from shown import STATUS_BAR, Indicator

pytestmark = pytest.mark.xdist_group("browser")

Open = Callable[..., Notebook]
TRUST = "**/sealbook/api/trust*"

#: What may stand in the indicator while it is not known whether the kernel before is still there.
NOTHING_CLAIMED = {"Verifying…", "No kernel", "Not known"}


def contrast(style: dict[str, str]) -> float:
    """WCAG 2.2's contrast ratio of a text."""

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(style["color"]), luminance(style["background-color"])), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_each_state_has_a_word_a_form_and_a_colour_of_its_own(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    seen = {"simulated": notebook.indicator}
    looks, styles = {}, {}

    def note(state: str) -> None:
        looks[state] = notebook.indicator.look()
        styles[state] = notebook.indicator.style("color", "background-color", "border-top-style")

    assert seen
    note("simulated")
    screenshot(page, "indicator-simulated")
    notebook.verdict("intel")
    notebook.look_again()
    notebook.expect("Attested")
    note("attested")
    screenshot(page, "indicator-attested")
    notebook.verdict("ended")
    notebook.look_again()
    notebook.expect("Attested, stale")
    note("stale")
    ordinary = open_notebook("python3")
    note("not attested")
    assert ordinary
    refused = open_notebook(REFUSING)
    note("refused")
    assert refused
    assert {state: look.text for state, look in looks.items()} == {
        "simulated": "Simulated",
        "attested": "Attested",
        "stale": "Attested, stale",
        "not attested": "Not attested",
        "refused": "Refused",
    }
    assert len({look.shape for look in looks.values()}) == 5
    assert len({(s["color"], s["background-color"]) for s in styles.values()}) == 5
    assert all(contrast(style) >= 4.5 for style in styles.values()), styles


def test_the_dark_theme_has_colours_of_its_own_that_can_be_read(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    light = notebook.indicator.style("color", "background-color")
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    try:
        assert wait_until(lambda: notebook.indicator.style("color", "background-color") != light)
        for verdict, word in (("", "Simulated"), ("intel", "Attested"), ("ended", "Attested, stale")):
            if verdict:
                notebook.verdict(verdict)
                notebook.look_again()
            notebook.expect(word)
            assert contrast(notebook.indicator.style("color", "background-color")) >= 4.5
        screenshot(page, "indicator-dark")
    finally:
        page.evaluate(
            "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
        )
        page.wait_for_timeout(500)


def test_the_status_bar_says_the_same_and_leaves_with_the_notebook(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    bar = Indicator(page, STATUS_BAR)
    assert bar.text == notebook.indicator.text == "Simulated"
    page.evaluate("window.jupyterapp.commands.execute('launcher:create')")
    page.locator(STATUS_BAR).wait_for(state="hidden")


def test_a_refused_kernel_shows_the_verifiers_sentence(open_notebook: Open, lab: JupyterServer) -> None:
    notebook = open_notebook(REFUSING)
    look = notebook.indicator.look()
    assert look is not None
    said = lab.trust("", notebook.path)
    assert said["state"] == "refused"
    assert said["refusals"][0]["reason"] in look.title
    assert "not one the policy admits" in look.label


def test_it_turns_stale_by_itself_when_the_time_comes(open_notebook: Open) -> None:
    notebook = open_notebook()
    notebook.verdict("short")
    notebook.look_again()
    notebook.expect("Simulated")
    notebook.expect("Simulated, stale", seconds=20)
    look = notebook.indicator.look()
    assert look is not None
    assert "ttest again" in look.title


def test_the_end_of_its_time_is_not_missed_while_the_server_is_silent(
    open_notebook: Open, page: Page
) -> None:
    notebook = open_notebook()
    notebook.verdict("short")
    notebook.look_again()
    notebook.expect("Simulated")
    page.route(TRUST, lambda route: None)
    notebook.expect("Verifying…", seconds=6)
    page.unroute(TRUST)


def test_a_changed_policy_makes_it_stale(open_notebook: Open, policy_file: Any) -> None:
    notebook = open_notebook()
    before = policy_file.read_text()
    try:
        policy_file.write_text(
            re.sub(r'mrenclave = \["[0-9a-f]{64}"\]', f'mrenclave = ["{"ab" * 32}"]', before)
        )
        notebook.look_again()
        notebook.expect("Simulated, stale")
    finally:
        policy_file.write_text(before)
    notebook.look_again()
    notebook.expect("Simulated")


def test_a_restart_never_shows_what_was_found_before(
    open_notebook: Open, page: Page, lab: JupyterServer
) -> None:
    notebook = open_notebook()
    # Attested before, simulated after: one look tells which start a word is about.
    notebook.verdict("intel")
    notebook.look_again()
    notebook.expect("Attested")
    before = lab.trust(notebook.kernel)["evidence"]
    notebook.indicator.record()
    notebook.command("kernelmenu:restart")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    notebook.expect("Simulated")
    shown = notebook.indicator.recorded
    assert shown[0] == "Attested"
    assert "Attested" not in shown[1:], shown
    assert shown[1] in NOTHING_CLAIMED, shown
    assert lab.trust(notebook.kernel)["evidence"] != before


def test_a_restart_by_another_client_that_is_refused_is_seen_soon(
    open_notebook: Open, lab: JupyterServer, policy_file: Any
) -> None:
    notebook = open_notebook()
    before = policy_file.read_text()
    try:
        policy_file.write_text(
            re.sub(r'mrenclave = \["[0-9a-f]{64}"\]', f'mrenclave = ["{"ab" * 32}"]', before)
        )
        lab.post(f"api/kernels/{notebook.kernel}/restart")
        notebook.expect("Refused", seconds=25)
    finally:
        policy_file.write_text(before)


def test_a_crash_never_shows_what_was_found_before(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    notebook.verdict("intel")
    notebook.look_again()
    notebook.expect("Attested")
    notebook.indicator.record()
    notebook.run("import os; os._exit(1)", wait=False)
    notebook.expect("Simulated")
    shown = notebook.indicator.recorded
    assert shown[1] in NOTHING_CLAIMED, shown
    assert "Attested" not in shown[1:], shown


def test_a_server_that_does_not_answer_is_not_known_and_is_asked_again(
    open_notebook: Open, page: Page
) -> None:
    notebook = open_notebook()
    page.route(TRUST, lambda route: route.abort())
    notebook.look_again()
    notebook.expect("Not known")
    page.unroute(TRUST)
    notebook.expect("Simulated", seconds=20)


def test_nothing_is_claimed_while_the_connection_to_the_kernel_is_made_again(
    open_notebook: Open, page: Page
) -> None:
    notebook = open_notebook()
    kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    page.wait_for_function(f"{kernel}.connectionStatus === 'connected'")
    page.route(TRUST, lambda route: None)  # who answers nothing, not even an error
    page.evaluate(f"() => {{ void {kernel}.reconnect(); }}")
    notebook.expect("Verifying…", seconds=5)
    page.unroute(TRUST)
    notebook.expect("Simulated", seconds=40)


@pytest.mark.parametrize(
    "answer",
    [
        "null",
        "[]",
        '"attested"',
        '{"state": "attested", "kernel": "another"}',
        '{"state": "attested", "kernel": ""}',
        '{"state": "attested"}',
        '{"state": "ATTESTED"}',
        '{"state": ["attested"]}',
        "<html>attested",
        "",
    ],
)
def test_an_answer_of_another_kind_is_not_known(open_notebook: Open, page: Page, answer: str) -> None:
    notebook = open_notebook("python3")
    page.route(TRUST, lambda route: route.fulfill(body=answer, status=200))
    notebook.look_again()
    notebook.expect("Not known")


def test_a_kernel_that_was_shut_down_is_no_kernel(
    open_notebook: Open, page: Page, lab: JupyterServer
) -> None:
    notebook = open_notebook()
    notebook.command("kernelmenu:shutdown")
    notebook.expect("No kernel")


def test_another_kernel_is_judged_anew(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    notebook.indicator.record()
    page.evaluate(
        "window.jupyterapp.shell.currentWidget.sessionContext.changeKernel({name: 'python3'}).then(() => {})"
    )
    notebook.expect("Not attested")
    shown = notebook.indicator.recorded
    assert shown[-1] == "Not attested"
    assert set(shown[1:-1]) <= NOTHING_CLAIMED, shown


def test_a_page_that_nobody_sees_asks_nothing(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    notebook.command("sealbook:open-panel")
    page.locator("#sealbook-panel [data-section=identity]").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/sealbook/api/" in request.url else None)
    page.wait_for_timeout(5000)
    assert len(asked) >= 2, "the panel asks while it is seen"
    # Chromium without a screen hides no page: the page is told that it is hidden, as the browser would.
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
        Object.defineProperty(document, 'visibilityState', {configurable: true, get: () => hidden ? 'hidden' : 'visible'});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(1000)
    asked.clear()
    page.wait_for_timeout(6000)
    assert asked == []
    with page.expect_request(TRUST):
        page.evaluate(hide, False)


def test_a_panel_and_an_indicator_behind_another_tab_ask_nothing(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    page.route(TRUST, lambda route: route.abort())
    notebook.look_again()
    notebook.expect("Not known")
    page.evaluate("window.jupyterapp.commands.execute('launcher:create')")
    page.locator(STATUS_BAR).wait_for(state="hidden")
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/sealbook/api/" in request.url else None)
    # In front it would ask every five seconds.
    page.wait_for_timeout(7000)
    assert asked == []


def test_the_kernel_gets_no_message_because_of_it(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    notebook.command("sealbook:open-panel")
    page.wait_for_timeout(4000)  # JupyterLab itself asks a new kernel this and that
    page.evaluate(
        """() => {
            window.sentByTheTest = [];
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            kernel.anyMessage.connect((_, {msg, direction}) => {
                if (direction === 'send') { window.sentByTheTest.push(msg.header.msg_type); }
            });
        }"""
    )
    page.wait_for_timeout(5000)
    assert page.evaluate("window.sentByTheTest") == []


def test_notebook_7_shows_it_in_its_toolbar(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook(app="notebooks")
    look = notebook.indicator.look()
    assert look is not None
    assert look.label.startswith("Kernel trust: Simulated")
    page.locator(".jp-NotebookPanel-toolbar .sealbook-Indicator").click()
    page.locator("#sealbook-panel [data-section=identity]").wait_for()
    screenshot(page, "notebook-7")


def test_it_is_said_to_screen_readers_and_reached_by_the_keyboard(open_notebook: Open, page: Page) -> None:
    notebook = open_notebook()
    named = [
        node["name"]["value"]
        for node in notebook.indicator.tree()
        if not node.get("ignored") and node.get("role", {}).get("value") == "button"
    ]
    assert sum(name.startswith("Kernel trust: Simulated. ") for name in named) == 2  # toolbar and status bar
    page.locator(
        ".jp-NotebookPanel-toolbar [data-command='notebook:run-cell-and-select-next'], .jp-NotebookPanel-toolbar jp-button"
    ).first.focus()
    for _ in range(30):
        if notebook.indicator.focus_visible():
            break
        page.keyboard.press("Tab")
    assert notebook.indicator.focus_visible()
    page.keyboard.press("Enter")
    page.locator("#sealbook-panel [data-section=identity]").wait_for()


def test_a_change_is_said_once_to_screen_readers(open_notebook: Open) -> None:
    notebook = open_notebook()
    notebook.verdict("ended")
    notebook.look_again()
    notebook.expect("Simulated, stale")
    nodes = {node["nodeId"]: node for node in notebook.indicator.tree()}

    def said(node: dict[str, Any]) -> str:
        own = str(node.get("name", {}).get("value", ""))
        return own + "".join(said(nodes[child]) for child in node.get("childIds", []) if child in nodes)

    live = [
        node
        for node in nodes.values()
        if node.get("role", {}).get("value") == "status" and said(node).startswith("Kernel trust: ")
    ]
    # The status bar has another indicator of the same, which keeps silent.
    assert len(live) == 1
    assert said(live[0]).startswith("Kernel trust: Simulated, stale")
    assert {"name": "live", "value": {"type": "token", "value": "polite"}} in live[0]["properties"]
