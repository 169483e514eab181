"""The Spark of this kernel, for whoever needs it; the driver is made when it is first asked for.

Apart from :mod:`sealbook.spark.driver`, so that a kernel that never uses Spark does not load what that needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sealbook import session
from sealbook.errors import RefusedError

if TYPE_CHECKING:
    from sealbook.spark.driver import Driver

_lock = threading.Lock()
_make: Callable[[], Driver] | None = None
_driver: Driver | None = None

#: Called with each SparkContext that was made, in the thread that made it.
on_context: list[Callable[[Any], None]] = []

#: Called when the session that names refer to has ended.
on_change: list[Callable[[], None]] = []


def attach(make: Callable[[], Driver] | None) -> None:
    """Let `make` make this process's driver when it is needed; None: this process has none any more."""
    global _make, _driver
    with _lock:
        _make, _driver = make, None


def refresh_names() -> None:
    """Let the names of a notebook follow a change of scale at once."""
    for refresh in on_change:
        refresh()


def current() -> Driver:
    """Return this kernel's driver.

    Raises
    ------
    RefusedError
        This process is no sealbook kernel.
    """
    global _driver
    with _lock:
        if _make is None:
            raise RefusedError(f"This kernel has no trusted Spark; {session.HOW_TO_ATTEST}.")
        if _driver is None:
            _driver = _make()
        return _driver


def notice_end() -> None:
    """Let PySpark forget a JVM that has ended by itself, so that its next use starts another."""
    if _driver is not None:
        _driver.notice_end()


def existing() -> Driver | None:
    """Return this kernel's driver if it was needed before."""
    return _driver
