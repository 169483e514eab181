"""The bar below a panel where somebody sits before the notebook: the state now, and a button.

It carries no facts that the static form does not have, so nothing is lost where no widget can live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

_ESM = """
function render({ model, el }) {
  const bar = document.createElement("div");
  const badge = document.createElement("strong");
  const line = document.createElement("span");
  const button = document.createElement("button");
  bar.setAttribute("role", "status");
  bar.className = "sealbook-live";
  button.type = "button";
  button.textContent = "Attest again now";
  button.addEventListener("click", () => model.send({ action: "attest" }));
  const paint = () => {
    badge.textContent = model.get("badge");
    badge.dataset.state = model.get("state");
    line.textContent = model.get("line");
    button.disabled = model.get("busy");
  };
  for (const name of ["badge", "state", "line", "busy"]) model.on("change:" + name, paint);
  bar.append(badge, line);
  el.append(bar, button);
  paint();
}
export default { render };
"""

_CSS = """
.sealbook-live { display: inline; margin-right: 0.8em; color: var(--jp-content-font-color1, inherit); }
.sealbook-live strong { margin-right: 0.6em; padding: 0.1em 0.5em; border: 2px solid currentColor;
  border-radius: 0.3em; }
.sealbook-live + button { padding: 0.3em 0.8em; font: inherit; cursor: pointer;
  color: var(--jp-ui-font-color1, #000); background: var(--jp-layout-color2, #eee);
  border: 1px solid currentColor; border-radius: 0.3em; }
.sealbook-live + button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); }
"""


class LiveBar(anywidget.AnyWidget):
    """State, one line and a button.

    Parameters
    ----------
    attest
        Called when the button is pressed; must not raise.
    """

    _esm = _ESM
    _css = _CSS
    badge = traitlets.Unicode().tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)
    line = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)

    def __init__(self, attest: Callable[[], None]) -> None:
        super().__init__()
        self._attest = attest
        self.on_msg(self._pressed)

    def _pressed(self, widget: Any, content: Any, buffers: Any) -> None:
        if content != {"action": "attest"} or self.busy:
            return
        self.busy = True
        try:
            self._attest()
        finally:
            self.busy = False
