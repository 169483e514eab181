"""Starts that were refused, so that a page can say so: what was refused has no kernel that could be asked.

In memory, of this process, by the name that jupyter_server gives a kernel's session (the notebook's path).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sealbook.errors import SealbookError

#: The variable of a kernel's environment by which jupyter_server names its session.
SESSION_VARIABLE: Final = "JPY_SESSION_NAME"

_MAX_STARTS: Final = 256


class RefusedStart(NamedTuple):
    """Why a kernel did not start, when (aware, UTC), and what the audit log has about it."""

    error: SealbookError
    at: datetime
    entries: Sequence[Mapping[str, Any]] = ()


class RefusedStarts:
    """The last refused start of each session, the newest 256 of them."""

    def __init__(self) -> None:
        self._starts: OrderedDict[str, RefusedStart] = OrderedDict()
        self._lock = threading.Lock()

    def note(
        self, name: str, error: SealbookError, entries: Sequence[Mapping[str, Any]] = ()
    ) -> RefusedStart:
        """Remember that the start for session `name` was refused; without a name nothing is kept."""
        start = RefusedStart(error, datetime.now(UTC), entries)
        with self._lock:
            self._starts.pop(name, None)
            if name:
                self._starts[name] = start
            while len(self._starts) > _MAX_STARTS:
                self._starts.popitem(last=False)
        return start

    def forget(self, name: str) -> None:
        """Forget what was refused: a kernel runs for the session now."""
        with self._lock:
            self._starts.pop(name, None)

    def last(self, name: str) -> RefusedStart | None:
        """Return the last refused start of this session, if no other succeeded since."""
        with self._lock:
            return self._starts.get(name)


#: Those of this process.
refused_starts = RefusedStarts()
