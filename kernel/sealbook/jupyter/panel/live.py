"""The bar above a panel where somebody sits before the notebook: the state now, and a button.

It carries no facts that the static form does not have, so nothing is lost where no widget can live. Where the
static form cannot follow (a page that was loaded again, Voila), the bar shows the newer one itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

_ESM = """
const ENDED = "The kernel of this panel has ended; what is written here is the past.";
// Longest wait, in milliseconds: a machine may sleep meanwhile, or its clock be set.
const LONGEST = 60000;

// Tells when the kernel has ended, by what the front end knows; asks nobody. A restart from this page, or
// after a crash, ends the comm. Of the rest only JupyterLab's manager knows: the status, and the kernel's
// farewell before somebody else's restart, of which the page learns nothing else.
function watch(model, tell) {
  const kernel = model.widget_manager?.kernel;
  const status = (_, now) => ["restarting", "autorestarting", "starting", "dead"].includes(now) && tell();
  const message = (sender, one) => one.header.msg_type === "shutdown_reply" && tell();
  model.on("comm_live_update", tell);  // it was live, so it is not any more
  kernel?.statusChanged?.connect(status);
  kernel?.iopubMessage?.connect(message);
  return () => {
    model.off("comm_live_update", tell);
    kernel?.statusChanged?.disconnect(status);
    kernel?.iopubMessage?.disconnect(message);
  };
}

function draw({ model, el }, ended) {
  const bar = document.createElement("div");
  const badge = document.createElement("strong");
  const line = document.createElement("span");
  const button = document.createElement("button");
  bar.setAttribute("role", "status");
  bar.className = "sealbook-live";
  button.type = "button";
  button.textContent = "Attest again now";
  button.addEventListener("click", () => model.send({ action: "attest" }));
  const newer = document.createElement("div");
  newer.className = "sealbook-newer";
  // The form below is updated by the kernel, but not after the page was loaded again.
  const follow = () => {
    const written = model.get("written");
    const others = [...document.querySelectorAll(".sealbook-panel")].filter((one) => !newer.contains(one));
    if (others.some((one) => one.textContent.includes(written))) newer.replaceChildren();
    else newer.innerHTML = model.get("html");
  };
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;  // else it would be read out again
  };
  let waiting, crossing;
  const say = () => {
    clearTimeout(crossing);
    const left = model.get("until") ? model.get("until") - Date.now() : Infinity;
    const over = ended();
    const late = left <= 0 ? " (stale)" : "";
    write(badge, over ? "\u25cc Ended" : model.get("badge") + late);
    write(line, over ? ENDED : model.get("line") + (late && " By this browser's clock that has passed."));
    badge.dataset.state = over ? "ended" : model.get("state");
    button.disabled = over || model.get("busy");
    if (!over && left > 0 && left < Infinity) crossing = setTimeout(say, Math.min(left, LONGEST));
  };
  const paint = () => {
    clearTimeout(waiting);
    waiting = setTimeout(follow, 1500);
    say();
  };
  const names = ["badge", "state", "line", "busy", "until", "written"];
  for (const name of names) model.on("change:" + name, paint);
  bar.append(badge, line);
  el.append(bar, button, newer);
  paint();
  return [say, () => {
    clearTimeout(waiting);
    clearTimeout(crossing);
    for (const name of names) model.off("change:" + name, paint);
  }];
}

export default () => {
  let over = false;
  const views = new Set();
  return {
    initialize: ({ model }) => watch(model, () => {
      over = true;
      for (const say of views) say();
    }),
    render: (view) => {
      // Without a kernel from the beginning, as in a notebook that was saved with its widgets.
      over ||= view.el.classList.contains("jupyter-widgets-disconnected");
      const [say, stop] = draw(view, () => over);
      views.add(say);
      return () => {
        views.delete(say);
        stop();
      };
    },
  };
};
"""

_CSS = """
.sealbook-live { padding: 0.4em 2px; line-height: 1.8; color: var(--jp-content-font-color1, inherit); }
.sealbook-live strong { margin-right: 0.6em; padding: 0.1em 0.5em; border: 2px solid currentColor;
  border-radius: 0.3em; }
.sealbook-live + button { margin: 2px; padding: 0.3em 0.8em; font: inherit; cursor: pointer;
  color: var(--jp-ui-font-color1, #000); background: var(--jp-layout-color2, #eee);
  border: 1px solid currentColor; border-radius: 0.3em; }
.sealbook-live + button:disabled { opacity: 0.5; cursor: default; }
.sealbook-live + button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); }
.sealbook-newer { color: var(--jp-content-font-color1, inherit); }
"""


class LiveBar(anywidget.AnyWidget):
    """State, one line and a button.

    Only the kernel writes it. The page can press the button, and that is all: whoever holds the comm could
    otherwise have the kernel, and with it every other view, say what he likes.

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
    #: Whether it attests now, for the eye.
    busy = traitlets.Bool(False).tag(sync=True)
    #: When the verdict ends, in milliseconds since 1970, which the browser's clock crosses by itself; or 0.
    until = traitlets.Float(0.0).tag(sync=True)
    #: The static form, and the words in it that say when it was written.
    html = traitlets.Unicode().tag(sync=True)
    written = traitlets.Unicode().tag(sync=True)

    def __init__(self, attest: Callable[[], None]) -> None:
        super().__init__()
        self._attest = attest
        self._gate = threading.Lock()
        self.on_msg(self._pressed)

    def set_state(self, sync_data: Any) -> None:
        """Ignore what a front end wants the state to be; ipywidgets calls this for nothing else."""

    def _pressed(self, widget: Any, content: Any, buffers: Any) -> None:
        if content != {"action": "attest"} or not self._gate.acquire(blocking=False):
            return
        try:
            self.busy = True
            self._attest()
        finally:
            self.busy = False
            self._gate.release()
