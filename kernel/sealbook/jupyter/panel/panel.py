"""The panel: shown once or several times, and the same everywhere when something changes."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealbook import session
from sealbook.errors import SealbookError
from sealbook.jupyter.panel.facts import PanelFacts
from sealbook.jupyter.panel.static import BADGES, panel_html, panel_text, when

if TYPE_CHECKING:
    from sealbook.jupyter.panel.live import LiveBar

#: Panels that are kept up to date once they are shown, the newest ones.
_MOST_SHOWN = 32
#: Longest that the timer waits, in seconds: the clock may be set meanwhile.
_LONGEST_WAIT = 600.0


class AttestationPanel:
    """What the verifier found about this kernel, as HTML that is complete by itself.

    Where somebody sits before the notebook a bar with *Attest again now* stands above it. In batch runs there
    is only the static form, so that an export shows it and not an empty widget.

    Whatever attests anew, refuses, or lets the verdict expire, every place that shows a panel is updated.

    Parameters
    ----------
    live
        Whether to show the bar; None to find out.
    """

    def __init__(self, *, live: bool | None = None) -> None:
        self._live = live
        self._lock = threading.RLock()
        self._displays: list[str] = []
        self._bar: LiveBar | None = None
        self._facts = PanelFacts.ask(session.current())

    @property
    def facts(self) -> PanelFacts:
        """What is shown."""
        return self._facts

    def attest(self) -> None:
        """Attest anew now and show what came of it, a refusal too; never raises."""
        with contextlib.suppress(SealbookError):  # it is shown: the session tells every panel
            session.current().reattest()

    def refresh(self, *, failure: str = "") -> None:
        """Have the evidence verified again and update every place that shows this panel.

        Parameters
        ----------
        failure
            Why attesting anew was refused just now; empty where it was not.
        """
        self._show(self._facts.after(session.current(), failure))

    def look(self) -> None:
        """Update every place that shows this panel if its verdict has ended meanwhile."""
        facts = self._facts.now()
        if facts.stale and not self._facts.stale:
            self._show(facts)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        name = f"sealbook-panel-{secrets.token_hex(8)}"
        with self._lock:
            self._displays.append(name)
            self._facts = self._facts.now()
            del self._displays[:-_MOST_SHOWN]
            bundle = self._bundle()
        _timetable.add(self)
        # The bar first: it says when what stands below it is the past.
        if somebody_is_there() if self._live is None else self._live:
            display(self._live_bar())
        display(bundle, raw=True, display_id=name)

    def __repr__(self) -> str:
        return panel_text(self._facts.now())

    def _repr_html_(self) -> str:
        return panel_html(self._facts.now())

    def _bundle(self) -> dict[str, Any]:
        return {"text/html": panel_html(self._facts), "text/plain": panel_text(self._facts)}

    def _live_bar(self) -> LiveBar:
        from sealbook.jupyter.panel.live import LiveBar

        with self._lock:
            if self._bar is None:
                self._bar = LiveBar(self.attest)
            self._paint(self._bar)
            return self._bar

    def _paint(self, bar: LiveBar) -> None:
        facts = self._facts
        shape, words, _, _ = BADGES[facts.state]
        bar.state = facts.state
        bar.badge = f"{shape} {words}" + (" (stale)" if facts.stale else "")
        verified = when(facts.result.verified_at) if facts.result else ""
        parts = (
            f"Last verified at {verified}." if verified else "",
            f"Holds until {when(facts.fresh_until)}." if facts.fresh_until and not facts.stale else "",
            facts.stale,
            f"Attesting again was refused: {facts.failure}" if facts.failure else "",
        )
        bar.line = " ".join(filter(None, parts))
        bar.until = facts.fresh_until.timestamp() * 1000 if facts.fresh_until and not facts.stale else 0.0
        # Together, so that nobody sees the time of one form above another.
        with bar.hold_sync():
            bar.html, bar.written = panel_html(facts), f"written at {when(facts.written_at)}"

    def _show(self, facts: PanelFacts) -> None:
        from IPython.display import update_display

        with self._lock:
            self._facts = facts
            bundle, displays, bar = self._bundle(), list(self._displays), self._bar
            if bar is not None:
                self._paint(bar)
        for name in displays:
            update_display(bundle, raw=True, display_id=name)
        _timetable.schedule()


def somebody_is_there() -> bool:
    """Tell whether the cell that runs was sent by somebody who could be asked something.

    Clients that run notebooks by themselves (nbclient, and with it papermill and nbconvert) say that nobody
    answers `input()`. Voila runs notebooks like that too, for somebody who then looks at them.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    if any(name.startswith("VOILA_") for name in os.environ):
        return True
    return bool(getattr(kernel, "_allow_stdin", False))


class _Timetable:
    """Every panel that is shown, and the one timer that waits for the first verdict to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self.panels: deque[AttestationPanel] = deque(maxlen=_MOST_SHOWN)

    def add(self, panel: AttestationPanel) -> None:
        if panel not in self.panels:
            self.panels.append(panel)
        self.schedule()

    def schedule(self) -> None:
        """Set the timer anew; there is none while nothing can end."""
        ends = [
            facts.fresh_until
            for facts in (panel.facts for panel in list(self.panels))
            if facts.fresh_until is not None and not facts.stale
        ]
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if ends:
                left = (min(ends) - datetime.now(UTC)).total_seconds()
                self._timer = threading.Timer(min(max(left, 0.0) + 0.05, _LONGEST_WAIT), self._look)
                self._timer.daemon = True
                self._timer.start()

    def attested_anew(self, error: SealbookError | None) -> None:
        """Show what became of an attempt to attest anew."""
        for panel in list(self.panels):
            panel.refresh(failure=str(error) if error else "")

    def _look(self) -> None:
        for panel in list(self.panels):
            panel.look()
        self.schedule()


_timetable = _Timetable()
session.on_attestation.append(_timetable.attested_anew)
