"""The panel as HTML and as text: complete, correct without a network, and readable without any style.

Whoever shows it may drop attributes (GitHub does), so every state is also a word, and nothing relies on
colour. Nothing is loaded from anywhere, there is no script, and every value is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sealbook.attestation.chain_of_trust import Link
from sealbook.attestation.meanings import meaning_of_advisory, meaning_of_status
from sealbook.jupyter.magics.arguments import printable
from sealbook.jupyter.magics.display import AttestationView
from sealbook.jupyter.panel.facts import PanelFacts

#: By state: shape, words, and colours (text, ground) that hold in light and dark themes alike.
BADGES: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "attested": ("\u2714", "Attested", "#ffffff", "#1b7837"),
    "simulated": ("\u25c7", "Simulated enclave: no hardware protects it", "#000000", "#fdae61"),
    "refused": ("\u2716", "Refused", "#ffffff", "#b2182b"),
    "not attested": ("\u25cb", "Not attested", "#ffffff", "#b2182b"),
}
_STALE = ("\u25d4", "Stale", "#000000", "#fee08b")
_MARKS: Final = {True: "\u2714 passed", False: "\u2716 refused", None: "\u2026 not reached"}
#: Where a link joins that stands beside the chain, and by what each is held that stands in it.
_BESIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "Quote": ("Policy",),
    "Quoting enclave": ("QE identity",),
    "PCK certificate": ("TCB info",),
    "PCK CA": ("Revocation lists", "TCB signer"),
}
_HELD: Final[Mapping[str, str]] = {
    "Quote": "signed by the key of",
    "Quoting enclave": "signed with",
    "PCK certificate": "issued by",
    "PCK CA": "issued by",
}
_CELL = "text-align:left;vertical-align:top;padding:0.25em 0.75em"
_VALUE = f"{_CELL};word-break:break-all"


def panel_html(facts: PanelFacts) -> str:
    """Return the whole panel as HTML."""
    parts = [_badges(facts), *(f"<p>{_escape(sentence)}</p>" for sentence in _sentences(facts))]
    if facts.result is not None:
        parts.append(_table(AttestationView(facts.result).rows()))
        parts += _platform(facts)
    if facts.chain:
        parts.append(_drawing(facts.chain))
        parts += [_link(link) for link in facts.chain]
    if facts.channel is not None:
        parts.append(_channel(facts.channel))
    return f'<div class="sealbook-panel" data-state="{_escape(facts.state)}">{"".join(parts)}</div>'


def panel_text(facts: PanelFacts) -> str:
    """Return the panel as text, without the details of each link."""
    lines = [" / ".join(f"{shape} {words}" for shape, words, _, _ in _shown_badges(facts))]
    lines += _sentences(facts)
    if facts.result is not None:
        view = AttestationView(facts.result)
        lines += repr(view).splitlines()[1:]
    if facts.chain:
        lines += _drawn(facts.chain)
    if facts.channel is not None:
        lines.append("The channel binds: " + ", ".join(claim["name"] for claim in facts.channel["claims"]))
    return "\n".join(printable(line) for line in lines)


def when(moment: datetime | None) -> str:
    """Write a time for a person."""
    return "unknown" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _sentences(facts: PanelFacts) -> list[str]:
    found = []
    if facts.stale:
        found.append(facts.stale)
    if facts.failure:
        found.append(f"Attesting again was refused: {facts.failure}")
    if facts.result is not None:
        until = f" The verdict holds until {when(facts.fresh_until)}." if facts.fresh_until else ""
        what = "Verified" if facts.result.attested else "Judged"
        found.append(
            f"{what} at {when(facts.result.verified_at)}.{until} This was written at "
            f"{when(facts.written_at)} and cannot know what came later."
        )
    if facts.note:
        found.append(facts.note)
    return found


def _shown_badges(facts: PanelFacts) -> list[tuple[str, str, str, str]]:
    return [BADGES[facts.state], *([_STALE] if facts.stale else [])]


def _badges(facts: PanelFacts) -> str:
    return " ".join(
        f'<strong class="sealbook-badge" style="color:{ink};background:{ground};padding:0.2em 0.6em;'
        f'border-radius:0.3em">{shape} {_escape(words)}</strong>'
        for shape, words, ink, ground in _shown_badges(facts)
    )


def _platform(facts: PanelFacts) -> list[str]:
    result = facts.result
    if result is None or not result.tcb_status:
        return []
    sentences = [f"{result.tcb_status}: {meaning_of_status(result.tcb_status)}"]
    sentences += [f"{name}: {meaning_of_advisory(name)}" for name in result.advisories]
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in sentences)
    return [_details("What the platform's status means", f"<ul>{items}</ul>")]


def _drawing(chain: Sequence[Mapping[str, Any]]) -> str:
    """Draw the chain as a table: what follows from what goes down, what joins from the side stands beside."""
    links = {link["name"]: link for link in chain}
    rows = []
    for link in chain:
        if link["side"]:
            continue
        beside = "<br>".join(_named(links[name]) for name in _BESIDE.get(link["name"], ()) if name in links)
        joins = "\u2190" if beside else ""
        rows.append(
            f'<tr><td style="{_CELL}">{_named(link)}</td><td style="{_CELL}">{joins}</td>'
            f'<td style="{_CELL}">{beside}</td></tr>'
        )
        if link["name"] in _HELD:
            held = f"\u2193 {_HELD[link['name']]}"
            rows.append(f'<tr><td style="{_CELL}">{_escape(held)}</td><td></td><td></td></tr>')
    return (
        "<p><strong>Chain of trust</strong>, from the quote down to the root that the policy pins; beside it "
        f"what each link is judged by</p><table>{''.join(rows)}</table>"
    )


def _drawn(chain: Sequence[Mapping[str, Any]]) -> list[str]:
    """Draw the chain as lines of text."""
    links = {link["name"]: link for link in chain}
    lines = ["Chain of trust, from the quote down to the root:"]
    for link in chain:
        if link["side"]:
            continue
        lines.append(f"  {link['name']}: {_summary(link)}")
        lines += [
            f"      \u2190 {name}: {_summary(links[name])}"
            for name in _BESIDE.get(link["name"], ())
            if name in links
        ]
        if link["name"] in _HELD:
            lines.append(f"    \u2193 {_HELD[link['name']]}")
    return lines


def _named(link: Mapping[str, Any]) -> str:
    return f"<strong>{_escape(link['name'])}</strong>: {_escape(_summary(link))}"


def _summary(link: Mapping[str, Any]) -> str:
    found = [check["passed"] for check in link["checks"]]
    if False in found:
        refused = [check["name"] for check in link["checks"] if check["passed"] is False]
        return f"\u2716 refused by {', '.join(refused)}"
    passed, missing = found.count(True), found.count(None)
    said = f"\u2714 {passed} check{'s' if passed != 1 else ''} passed"
    return f"{said}, {missing} not reached" if missing else said


def _link(link: Mapping[str, Any]) -> str:
    checks = "".join(
        f'<tr><td style="{_CELL};white-space:nowrap">{_MARKS[check["passed"]]}</td>'
        f'<td style="{_CELL}">{_escape(check["name"])}</td>'
        f'<td style="{_CELL}">{_escape(" ".join(filter(None, (check["title"], check["reason"]))))}</td></tr>'
        for check in link["checks"]
    )
    body = f"<p>{_escape(link['title'])}</p>{_table(link['facts'])}<table>{checks}</table>"
    return _details(f"{link['name']}: {_summary(link)}", body)


def _channel(channel: Mapping[str, Any]) -> str:
    rows = [("Role", channel["role"]), ("Made for", channel["audience"])]
    rows += [(claim["name"], f"{claim['value']} ({claim['meaning']})") for claim in channel["claims"]]
    return _details("Channel: what the evidence binds besides the challenge", _table(rows))


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{_escape(summary)}</summary>{body}</details>"


def _table(rows: Iterable[Sequence[str]]) -> str:
    lines = "".join(
        f'<tr><th style="{_CELL};white-space:nowrap">{_escape(name)}</th>'
        f'<td style="{_VALUE}">{_escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{lines}</table>" if lines else ""


def _escape(text: object) -> str:
    return html.escape(printable(str(text)))


class ChainView:
    """A chain of trust for a notebook, drawn as in the panel.

    Parameters
    ----------
    chain
        What :func:`~sealbook.attestation.chain_of_trust.chain_of_trust` returned.
    """

    def __init__(self, chain: Iterable[Link]) -> None:
        self._links = [link.to_dict() for link in chain]

    def __repr__(self) -> str:
        return "\n".join(printable(line) for line in _drawn(self._links))

    def _repr_html_(self) -> str:
        return _drawing(self._links) + "".join(_link(link) for link in self._links)
