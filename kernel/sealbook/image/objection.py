"""One thing that a manifest says and must not, or must say and does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: What :attr:`Objection.found` says where a setting is not there at all.
NOT_WRITTEN = "not written"

_LONGEST = 80


@dataclass(frozen=True)
class Objection:
    """Why a manifest is refused.

    Attributes
    ----------
    setting
        As the manifest names it, ``sgx.debug`` or ``fs.mounts[2]``.
    found
        What stands there, shortened; of tables and lists only their size, for they may hold a key.
    reason
        What goes wrong with it.
    remedy
        What to write instead.
    """

    setting: str
    found: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.setting} ({self.found}): {self.reason}; {self.remedy}."

    def to_dict(self) -> dict[str, str]:
        """Return the four texts by name."""
        return asdict(self)


def shown(value: Any) -> str:
    """Write a value as the manifest has it, on one short line; None, which TOML does not have, is missing."""
    if value is None:
        return NOT_WRITTEN
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    if isinstance(value, dict):
        return f"a table of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    # TOML also has numbers of any length, which Python refuses to write, and times.
    return shortened(str(value)) if not isinstance(value, int) or abs(value) < 1 << 64 else "a huge number"


def shortened(text: str) -> str:
    """Cut `text` where a table would become unreadable."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def several(items: list[str]) -> str:
    """Name the first of many; an image has thousands of files, and a person mends one cause, not each."""
    first = shortened(items[0])
    return first if len(items) == 1 else f"{first} and {len(items) - 1} more"
