"""A kernel without a client ends by itself.

In an enclave there is no parent process to poll (Gramine's first process has ppid 0), so the
kernel asks over the attested channel whether its client is still there. Nobody but that
client can answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

import psutil

#: Seconds between two pings.
INTERVAL = 1.0

#: So many pings in a row without an answer and the client counts as gone. Counted in pings and
#: not in clock time: a laptop that slept has missed none.
PATIENCE = 10


class ClientWatch(threading.Thread):
    """Pings the client and ends the process when it is gone.

    Parameters
    ----------
    ping
        Returns True when the client answered; has its own time-out of about :data:`INTERVAL`.
    end
        Called once, from this thread, when the client is gone.
    """

    def __init__(
        self,
        ping: Callable[[], bool],
        *,
        end: Callable[[], None] | None = None,
        interval: float = INTERVAL,
        patience: int = PATIENCE,
        log: logging.Logger | None = None,
    ) -> None:
        super().__init__(name="sealbook-client-watch", daemon=True)
        self._ping = ping
        self._end = end or end_process
        self._interval = interval
        self._patience = patience
        self._log = log or logging.getLogger(__name__)
        self._stopped = threading.Event()

    def run(self) -> None:
        """Ping until stopped or the client is gone."""
        missed = 0
        while not self._stopped.wait(self._interval):
            missed = 0 if self._ping() else missed + 1
            if missed >= self._patience:
                self._log.warning("The client of this kernel is gone: the kernel ends itself.")
                self._end()
                return

    def stop(self) -> None:
        """Stop watching; the process is ending in the usual way."""
        self._stopped.set()


def end_process() -> None:
    """End this process and everything it started, also when the main thread is busy."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        _quietly(child.terminate)
    for child in psutil.wait_procs(children, timeout=2)[1]:
        _quietly(child.kill)
    # Not sys.exit: this is not the main thread, and that one may be in a C call for hours.
    os._exit(1)


def _quietly(action: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.Error):  # it ended in between
        action()
