"""What the indicator shows to a person, read past its closed shadow tree through the browser's debugger."""

# ruff: noqa: E501 - scripts of pages

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import CDPSession, Page

TOOLBAR = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-NotebookPanel-toolbar .sealbook-Indicator"
#: The state at the head of the panel.
STATE_LINE = "#sealbook-panel .sealbook-StateLine"
STATUS_BAR = "#jp-main-statusbar .sealbook-Indicator"


@dataclass(frozen=True)
class Look:
    """One look at the indicator: its word, the class of its form, its name for screen readers, its tooltip."""

    text: str
    kind: str
    label: str
    title: str
    shape: str


class Indicator:
    """The indicator of a page; `selector` says which."""

    def __init__(self, page: Page, selector: str = TOOLBAR) -> None:
        self.page = page
        self._selector = selector
        self._cdp: CDPSession = page.context.new_cdp_session(page)
        self._cdp.send("DOM.enable")

    def look(self) -> Look | None:
        """Look at it; None where there is none."""
        button = self._button()
        if button is None:
            return None
        found = self._call(
            button,
            "function () { return {text: this.textContent, kind: this.className,"
            " label: this.getAttribute('aria-label'), title: this.getAttribute('title'),"
            " shape: this.querySelector('.area').getAttribute('d') + this.querySelector('.line').getAttribute('d')}; }",
        )
        return Look(**found)

    @property
    def text(self) -> str:
        seen = self.look()
        return "" if seen is None else seen.text

    def style(self, *names: str) -> dict[str, str]:
        """Return computed styles of the button."""
        button = self._button()
        assert button is not None
        return dict(
            self._call(
                button,
                "function (names) { const style = getComputedStyle(this);"
                " return Object.fromEntries(names.map(name => [name, style.getPropertyValue(name)])); }",
                list(names),
            )
        )

    def focus_visible(self) -> bool:
        """Tell whether the keyboard is on it, and people see that."""
        button = self._button()
        return button is not None and bool(
            self._call(
                button,
                "function () { return this.matches(':focus-visible') && getComputedStyle(this).outlineStyle !== 'none'; }",
            )
        )

    def record(self) -> None:
        """Write down from now on all that it shows, in an isolated list of this page."""
        button = self._button()
        assert button is not None
        self._call(
            button,
            "function () { const seen = window.seenByTheTest = [this.textContent]; const note = () => seen.push(this.textContent);"
            " new MutationObserver(note).observe(this, {subtree: true, childList: true, characterData: true, attributes: true}); }",
        )

    @property
    def recorded(self) -> list[str]:
        """What it showed since :meth:`record`, without repetitions."""
        texts: list[str] = self.page.evaluate("window.seenByTheTest")
        return [text for index, text in enumerate(texts) if index == 0 or texts[index - 1] != text]

    def accessible(self) -> list[dict[str, Any]]:
        """Return the nodes of the accessibility tree in it."""
        button = self._button()
        assert button is not None
        nodes = self._cdp.send(
            "Accessibility.getPartialAXTree", {"objectId": button, "fetchRelatives": False}
        )["nodes"]
        return list(nodes)

    def tree(self) -> list[dict[str, Any]]:
        """Return the whole page's accessibility tree."""
        return list(self._cdp.send("Accessibility.getFullAXTree")["nodes"])

    def _button(self) -> str | None:
        root = self._cdp.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        found = self._cdp.send("DOM.querySelector", {"nodeId": root, "selector": self._selector})["nodeId"]
        if not found:
            return None
        node = self._cdp.send("DOM.describeNode", {"nodeId": found, "depth": -1, "pierce": True})["node"]
        backend = _find(node, "BUTTON")
        if backend is None:
            return None
        return str(self._cdp.send("DOM.resolveNode", {"backendNodeId": backend})["object"]["objectId"])

    def _call(self, target: str, function: str, *arguments: Any) -> Any:
        answer = self._cdp.send(
            "Runtime.callFunctionOn",
            {
                "objectId": target,
                "functionDeclaration": function,
                "arguments": [{"value": value} for value in arguments],
                "returnByValue": True,
            },
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


def state_line(page: Page) -> str:
    """Return the text at the head of the panel; empty where there is none."""
    cdp = page.context.new_cdp_session(page)
    try:
        root = cdp.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        found = cdp.send("DOM.querySelector", {"nodeId": root, "selector": STATE_LINE})["nodeId"]
        if not found:
            return ""
        node = cdp.send("DOM.describeNode", {"nodeId": found, "depth": -1, "pierce": True})["node"]
        frame = _find({"children": node.get("shadowRoots", [])}, "DIV")
        assert frame is not None, "the state line has no frame"
        target = cdp.send("DOM.resolveNode", {"backendNodeId": frame})["object"]["objectId"]
        answer = cdp.send(
            "Runtime.callFunctionOn",
            {
                "objectId": target,
                "functionDeclaration": "function () { return this.innerText; }",
                "returnByValue": True,
            },
        )
        return str(answer["result"].get("value", ""))
    finally:
        cdp.detach()


def _find(node: dict[str, Any], name: str) -> int | None:
    """Return the backend id of the first such element, in shadow trees too."""
    if node.get("nodeName") == name:
        return int(node["backendNodeId"])
    for child in [*node.get("shadowRoots", []), *node.get("children", [])]:
        if (found := _find(child, name)) is not None:
            return found
    return None
