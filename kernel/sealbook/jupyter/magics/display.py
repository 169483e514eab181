"""How attestation and keys look in a notebook: static HTML and plain text, every value escaped.

Static on purpose: an executed notebook that is exported or mailed shows the same as the live
page, and no script in it could be made to say something else.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sealbook.attestation import AttestationResult
from sealbook.jupyter.magics.arguments import printable
from sealbook.session import KeyEntry, Session

#: What a badge says, and its colours (text, ground) in light and dark themes alike.
_BADGES = {
    "attested": ("Attested", "#ffffff", "#1b7837"),
    "simulated": ("Simulated enclave: no hardware protects it", "#000000", "#fdae61"),
    "refused": ("Refused", "#ffffff", "#b2182b"),
    "not attested": ("Not attested", "#ffffff", "#b2182b"),
}

#: Guards that are no policy of the user's, in words.
_GUARDS = {"none": "no attestation needed", "session": "this kernel's own policy"}


@dataclass(frozen=True)
class AttestationView:
    """What the verifier found about this kernel, for a person."""

    result: AttestationResult

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs in the order in which they are shown."""
        result = self.result
        if result.root == "none":
            return [*self._rows_without_evidence(), *self._refusals()]
        root = "simulated, made on this machine" if result.simulated else result.root
        rows = [
            ("Result", result.summary()),
            ("Measurement", result.mrenclave),
            ("Signer", result.mrsigner),
            ("Product, version", f"{result.isv_prod_id}, {result.isv_svn}"),
            ("Platform status", result.tcb_status),
            ("Advisories", ", ".join(result.advisories) or "none"),
            ("Root of trust", f"{root} ({result.root_fingerprint})"),
            ("Policy", ", entry ".join(filter(None, (result.policy_id, result.identity)))),
            ("Verified", _time(result.verified_at)),
            ("Collateral valid until", _time(result.collateral_expires_at)),
        ]
        return [*rows, *self._refusals()]

    def _rows_without_evidence(self) -> list[tuple[str, str]]:
        result = self.result
        return [
            ("Result", result.summary()),
            ("Evidence", "none: nothing was measured, and no root of trust vouches for it"),
            ("Runs in", result.tee),
            ("Policy", result.policy_id),
            ("Judged", _time(result.verified_at)),
        ]

    def _refusals(self) -> list[tuple[str, str]]:
        return [(f"Refused by {each.check}", f"{each.reason} {each.remedy}") for each in self.result.refusals]

    def __repr__(self) -> str:
        return _text(_BADGES[self.result.label][0], self.rows())

    def _repr_html_(self) -> str:
        return f"{_badge(self.result.label)}{_table(self.rows())}"


@dataclass(frozen=True)
class KeysView:
    """The keys this session may name, for a person; no key material."""

    entries: tuple[KeyEntry, ...]
    label: str
    default: str

    @classmethod
    def of(cls, session: Session) -> KeysView:
        """Ask `session`."""
        return cls(session.key_entries(), session.label, session.default_key)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (name, guard, whether it may be used here, whether it is the default)."""
        return [
            (
                entry.name,
                _GUARDS.get(entry.guard, f"policy {entry.guard}"),
                "yes" if entry.usable else "only in an attested kernel",
                "default" if entry.name == self.default else "",
            )
            for entry in self.entries
        ]

    def __repr__(self) -> str:
        lines = [("Key", "Guarded by", "Usable here", ""), *self.rows()]
        return "\n".join([self._head(), *_columns(lines)])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in self.rows())
        head = "".join(f"<th>{name}</th>" for name in ("Key", "Guarded by", "Usable here", ""))
        note = html.escape(self._note())
        return f"{_badge(self.label)}<p>{note}</p><table><tr>{head}</tr>{body}</table>"

    def _head(self) -> str:
        return f"{_BADGES[self.label][0]}. {self._note()}"

    def _note(self) -> str:
        return f"Sealing without --key uses {self.default}."


def _time(when: datetime | None) -> str:
    return "unknown" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _badge(label: str) -> str:
    text, ink, ground = _BADGES[label]
    return (
        f'<strong class="sealbook-badge" data-state="{html.escape(label)}" style="color:{ink};'
        f'background:{ground};padding:0.2em 0.6em;border-radius:0.3em">{html.escape(text)}</strong>'
    )


def _cell(value: str) -> str:
    return f'<td style="text-align:left;word-break:break-all">{html.escape(value)}</td>'


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(
        f'<tr><th style="text-align:left;white-space:nowrap">{html.escape(name)}</th>{_cell(value)}</tr>'
        for name, value in rows
    )
    return f"<table>{lines}</table>"


def _text(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([title, *_columns(rows)])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [[printable(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]
