"""What the broker decided about one kernel, kept in memory as it happens, for who shows it.

The audit log has everything of every process for good; this has one channel's part of it, of this process,
and ends with the kernel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from sealbook.broker.audit import AuditLog

#: Entries that are kept of one kernel; the log itself has them all.
MAX_ENTRIES: Final = 1000

#: Items that are kept of one list, such as the reasons of a refusal.
_MOST_ITEMS: Final = 32

#: Sessions of one channel that are remembered: a kernel opens another one each time it attests anew.
_MAX_SESSIONS: Final = 256

#: Characters that are kept of one text; the log has the whole of it.
MAX_TEXT: Final = 200


class Trail:
    """The audit log's entries about one channel, the newest :data:`MAX_ENTRIES` of them.

    Texts in them are cut: a kernel chooses some of them, and as many entries as it likes.

    Parameters
    ----------
    audit
        The broker's log; listened to until :meth:`close`.
    channel
        See :func:`sealbook.broker.session.channel_of`.
    """

    def __init__(self, audit: AuditLog, channel: str) -> None:
        self._audit = audit
        self._channel = channel
        self._entries: deque[Mapping[str, Any]] = deque(maxlen=MAX_ENTRIES)
        self._sessions: deque[str] = deque(maxlen=_MAX_SESSIONS)
        self._lock = threading.Lock()
        audit.listeners.append(self._hear)

    def since(self, seq: int = 0) -> tuple[Mapping[str, Any], ...]:
        """Return the entries with a larger sequence number, in order."""
        with self._lock:
            return tuple(entry for entry in self._entries if entry["seq"] > seq)

    def close(self) -> None:
        """Listen no longer; what was heard stays."""
        if self._hear in self._audit.listeners:
            self._audit.listeners.remove(self._hear)

    def _hear(self, entry: Mapping[str, Any]) -> None:
        session = entry.get("session")
        with self._lock:
            if entry.get("channel") == self._channel:
                if isinstance(session, str):
                    self._sessions.append(session)
            elif session not in self._sessions:
                return
            self._entries.append(_cut(entry))


def _cut(value: Any) -> Any:
    """Return `value` with no text longer than :data:`MAX_TEXT`."""
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "\u2026"
    if isinstance(value, Mapping):
        return {name: _cut(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item) for item in value[:_MOST_ITEMS]]
    return value
