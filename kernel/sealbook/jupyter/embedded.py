"""The one broker of this process: every kernel of a Jupyter server, or of a papermill run, asks it.

One for all, because the keys named ``session/...`` live in its memory: what one notebook sealed
another may open, under the same policy, until the server ends.
"""

from __future__ import annotations

import threading

from sealbook.attestation.endorsements import user_endorsements
from sealbook.broker import Broker, open_broker

_lock = threading.Lock()
_broker: Broker | None = None


def embedded_broker() -> Broker:
    """Return this process's broker; opened when the first kernel starts."""
    global _broker
    with _lock:
        if _broker is None:
            _broker = open_broker(user_endorsements())
        return _broker
