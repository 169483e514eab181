"""The attestation panel: what it says, that it is never older than that, and that it needs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from traitlets.config import Config

import sealbook
from sealbook import session
from sealbook.errors import RefusedError
from sealbook.jupyter.panel import panel as module
from sealbook.jupyter.panel.facts import PanelFacts
from sealbook.jupyter.panel.static import BADGES, panel_html, panel_text

EVIL = "<img src=x onerror=alert(1)>\x1b[2J"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        assert not self.open, "tags that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.fixture(autouse=True)
def no_panel_of_another_test() -> Iterator[None]:
    yield
    module._timetable.panels.clear()
    module._timetable.schedule()


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=config, colors="nocolor")
    InteractiveShell.clear_instance()


@pytest.mark.usefixtures("brokered")
def test_the_static_form_says_all_that_the_verdict_says() -> None:
    facts = sealbook.AttestationPanel().facts
    page = Page(panel_html(facts))
    result = facts.result
    assert result is not None
    for value in (
        result.mrenclave,
        result.mrsigner,
        result.root_fingerprint,
        result.policy_id,
        result.identity,
        "UpToDate",
        "The platform has every update",
        "Simulated enclave: no hardware protects it",
        "channel",
        "sealbook tests",
        "cannot know what came later",
    ):
        assert value in page.text, value
    for link in facts.chain:
        assert link["title"] in page.text
        for check in link["checks"]:
            assert check["title"] in page.text
    assert [link["name"] for link in facts.chain][:5] == [
        "Quote",
        "Quoting enclave",
        "PCK certificate",
        "PCK CA",
        "Root",
    ]
    assert facts.fresh_until is not None


@pytest.mark.usefixtures("brokered")
def test_the_static_form_needs_no_script_no_network_and_no_style() -> None:
    page = Page(panel_html(sealbook.AttestationPanel().facts))
    assert page.tags <= {
        *("div", "strong", "p", "table", "tr", "th", "td", "br", "details", "summary", "ul", "li"),
    }
    assert set(page.attributes) <= {"class", "style", "data-state"}
    for style in page.attributes["style"]:
        assert "url(" not in style
    # Readable where attributes are dropped: every state is a word.
    bare = re.sub(r"<(\w+)[^>]*>", r"<\1>", panel_html(sealbook.AttestationPanel().facts))
    text = Page(bare).text
    assert "Simulated enclave" in text
    assert "passed" in text


@pytest.mark.usefixtures("brokered")
def test_every_value_is_escaped_also_in_the_chain_and_the_channel() -> None:
    facts = sealbook.AttestationPanel().facts
    assert facts.result is not None
    link = {
        "name": EVIL,
        "title": EVIL,
        "facts": [[EVIL, EVIL]],
        "checks": [{"name": EVIL, "title": EVIL, "passed": False, "reason": EVIL}],
        "side": False,
    }
    hostile = replace(
        facts,
        result=replace(facts.result, policy_id=EVIL, tcb_status=EVIL, advisories=(EVIL,), identity=EVIL),
        chain=(link, *facts.chain),
        channel={"role": EVIL, "audience": EVIL, "claims": [{"name": EVIL, "value": EVIL, "meaning": EVIL}]},
        failure=EVIL,
        note=EVIL,
    )
    assert "<img" not in panel_html(hostile)
    assert panel_html(hostile).count("&lt;img") > 10
    assert "\x1b" not in panel_html(hostile) + panel_text(hostile)


@pytest.mark.usefixtures("brokered")
def test_every_state_has_a_shape_a_word_and_colours_that_can_be_read() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len({shape for shape, _, _, _ in BADGES.values()}) == len(BADGES)
    for _, words, ink, ground in BADGES.values():
        brighter, darker = sorted((light(ink), light(ground)), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) >= 4.5, words  # WCAG 2.1, AA


@pytest.mark.usefixtures("brokered")
def test_attesting_again_updates_every_place_that_shows_a_panel(shell: InteractiveShell) -> None:
    panel = sealbook.AttestationPanel()
    with capture_output() as captured:
        display(panel)
        display(panel)
        before = panel.facts
        panel.attest()
    shown, updates = captured.outputs[:2], captured.outputs[2:]
    assert len(updates) == 2
    for each in updates:
        assert each.data["text/html"] != shown[0].data["text/html"]
    assert panel.facts.result != before.result
    assert panel.facts.state == "simulated"


@pytest.mark.usefixtures("brokered")
def test_a_panel_that_nobody_holds_is_updated_all_the_same(shell: InteractiveShell) -> None:
    import gc

    with capture_output() as captured:
        display(sealbook.AttestationPanel())
        gc.collect()
        session.current().reattest()
    assert len(captured.outputs) == 2


def test_a_refused_attempt_is_shown_everywhere_and_outweighs_the_verdict_before(
    shell: InteractiveShell, brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = sealbook.AttestationPanel()
    with capture_output() as captured:
        display(panel)
        monkeypatch.setattr(brokered.remote, "_evidence", lambda nonce: b"no quote")
        panel.attest()
        with pytest.raises(RefusedError):
            session.current().reattest()
    page = Page(captured.outputs[-1].data["text/html"])
    assert "\u2716 Refused" in page.text
    assert "Attesting again was refused: " in page.text
    assert panel.facts.state == "refused"
    assert "data-state" in page.attributes
    assert page.attributes["data-state"] == {"refused"}
    monkeypatch.undo()
    panel.attest()
    assert panel.facts.state == "simulated"


def _ending(brokered: Any, monkeypatch: pytest.MonkeyPatch, seconds: float) -> datetime:
    """Have the broker say that the session ends in so many seconds."""
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    honest = brokered.remote.appraisal
    monkeypatch.setattr(brokered.remote, "appraisal", lambda **named: replace(honest(**named), expires=end))
    return end


def test_when_the_verdict_ends_every_place_says_so_by_itself(
    shell: InteractiveShell, brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = _ending(brokered, monkeypatch, 0.4)
    panel = sealbook.AttestationPanel()
    assert not panel.facts.stale
    with capture_output() as captured:
        display(panel)
        while not panel.facts.stale:
            assert datetime.now(UTC) < end + timedelta(seconds=20)
            time.sleep(0.05)
        time.sleep(0.2)
    assert "Stale" not in captured.outputs[0].data["text/html"]
    assert len(captured.outputs) == 2
    for text in (captured.outputs[1].data["text/html"], captured.outputs[1].data["text/plain"]):
        assert "Stale" in text
        assert "nothing after that is known" in text
    assert "stale" in Page(panel_html(panel.facts)).text.lower()


def test_a_refusal_after_the_end_keeps_saying_that_it_ended(
    shell: InteractiveShell, brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = sealbook.AttestationPanel()
    with capture_output():
        display(panel)
        ended = datetime.now(UTC) - timedelta(seconds=1)
        panel._facts = replace(panel.facts, fresh_until=ended)
        brokered.broker.close_session(_session_of(brokered))
        monkeypatch.setattr(brokered.remote, "_evidence", lambda nonce: b"no quote")
        panel.attest()
    assert panel.facts.stale
    assert panel.facts.state == "refused"
    assert "was not verified again" in panel_html(panel.facts)


def _session_of(brokered: Any) -> Any:
    (opened,) = brokered.broker._sessions._open.values()
    return opened


@pytest.mark.usefixtures("brokered")
def test_an_attestation_that_a_key_made_necessary_is_shown_too(
    shell: InteractiveShell, brokered: Any
) -> None:
    panel = sealbook.AttestationPanel()
    with capture_output() as captured:
        display(panel)
        # The session has ended without anybody's doing; the next key attests anew.
        brokered.broker.close_session(_session_of(brokered))
        before = session.current().result
        brokered.remote.current(session.current().default_key)
    assert len(captured.outputs) == 2
    assert session.current().result == brokered.remote.result() != before
    assert panel.facts.state == "simulated"


def test_a_process_without_a_verdict_says_so_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    session.detach()
    panel = sealbook.AttestationPanel()
    assert panel.facts.state == "not attested"
    assert "Nothing vouches" in repr(panel)
    assert "Not attested" in panel._repr_html_()
    panel.attest()  # refused, and nothing raised


@pytest.mark.usefixtures("brokered")
def test_without_a_kernel_there_is_no_widget(shell: InteractiveShell) -> None:
    assert not module.somebody_is_there()
    with capture_output() as captured:
        display(sealbook.AttestationPanel())
    assert len(captured.outputs) == 1


def test_a_kernel_that_shows_no_panel_loads_nothing_for_one() -> None:
    code = (
        "import sys, sealbook, sealbook.jupyter.simulated_kernel, sealbook.jupyter.magics\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('anywidget', 'ipywidgets')"
        " or name.startswith(('sealbook.jupyter.panel', 'sealbook.attestation.chain_'))])"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.usefixtures("brokered")
def test_the_button_attests_once_and_nothing_else_is_a_command() -> None:
    from sealbook.jupyter.panel.live import LiveBar

    pressed = []
    bar = LiveBar(lambda: pressed.append(1))
    for content in (
        {"action": "attest"},
        {"action": "release"},
        "attest",
        {"action": "attest", "x": 1},
        None,
    ):
        bar._pressed(bar, content, [])
    assert pressed == [1]
    assert not bar.busy


@pytest.mark.usefixtures("brokered")
def test_a_page_cannot_write_the_bar_nor_block_its_button(shell: InteractiveShell) -> None:
    panel = sealbook.AttestationPanel(live=True)
    with capture_output():
        display(panel)
    bar = panel._bar
    assert bar is not None
    before = bar.get_state()
    claims = {"badge": "\u2714 Attested", "state": "attested", "line": "Genuine SGX enclave.", "busy": True}
    claims |= {"html": "<b>Attested</b>", "written": "", "until": 9e15, "_esm": "export default {}"}
    # What a page sends over the widget's comm.
    bar._handle_msg(
        {"content": {"data": {"method": "update", "state": claims, "buffer_paths": []}}, "buffers": []}
    )
    assert bar.get_state() == before
    result = panel.facts.result
    assert result is not None
    with capture_output():
        bar._handle_msg(
            {"content": {"data": {"method": "custom", "content": {"action": "attest"}}}, "buffers": []}
        )
    assert panel.facts.result is not None
    assert panel.facts.result.evidence_id != result.evidence_id


@pytest.mark.usefixtures("brokered")
def test_a_press_while_it_attests_is_none() -> None:
    from sealbook.jupyter.panel.live import LiveBar

    pressed = []

    def attest() -> None:
        pressed.append(bar.busy)
        bar.busy = False  # what is shown does not open the gate
        bar._pressed(bar, {"action": "attest"}, [])

    bar = LiveBar(attest)
    bar._pressed(bar, {"action": "attest"}, [])
    bar._pressed(bar, {"action": "attest"}, [])
    assert pressed == [True, True]


def test_the_bar_says_the_state_and_is_painted_again(
    shell: InteractiveShell, brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = sealbook.AttestationPanel(live=True)
    with capture_output():
        display(panel)
    bar = panel._bar
    assert bar is not None
    assert bar.state == "simulated"
    assert "Last verified at" in bar.line
    assert panel.facts.fresh_until is not None
    assert bar.until == panel.facts.fresh_until.timestamp() * 1000
    monkeypatch.setattr(brokered.remote, "_evidence", lambda nonce: b"no quote")
    with capture_output():
        panel.attest()
    assert bar.state == "refused"
    assert "was refused" in bar.line


def test_where_the_broker_says_nothing_the_panel_says_that(
    brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frame: bytes) -> bytes:
        raise RefusedError("The key broker did not answer.")

    monkeypatch.setattr(brokered.remote, "_send", fail)
    facts = PanelFacts.ask(session.current())
    assert facts.result is not None
    assert "did not answer" in panel_html(facts)
    assert facts.chain == ()
