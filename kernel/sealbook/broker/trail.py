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

#: Sessions of one channel that are remembered: a kernel opens another one each time it attests anew.
_MAX_SESSIONS: Final = 256


class Trail:
    """The audit log's entries about one channel, the newest :data:`MAX_ENTRIES` of them.

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
            self._entries.append(entry)
