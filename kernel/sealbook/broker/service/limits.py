"""How often somebody may ask: a bucket of tokens for each, refilled at a steady rate."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sealbook.errors import RefusedError

#: Askers that are remembered; who was not seen for longest is forgotten, that is, has a full bucket again.
_CAPACITY: Final = 8192


class BusyError(RefusedError):
    """Asked too often, or too much is going on; later the same request may pass."""


class RateLimit:
    """At most `burst` requests at once from one asker, and `rate` a second for long. Thread-safe."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, asker: str) -> None:
        """Count one request; raises BusyError where there were too many."""
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.pop(asker, (float(self._burst), now))
            tokens = min(float(self._burst), tokens + (now - then) * self._rate)
            self._buckets[asker] = (max(tokens - 1, 0.0) if tokens >= 1 else tokens, now)
            while len(self._buckets) > _CAPACITY:
                self._buckets.popitem(last=False)
        if tokens < 1:
            raise BusyError("There were too many requests from here: wait a second and try again.")


def asker_at(host: str) -> str:
    """Return what one network address counts as: whoever has one of IPv6 usually has 2**64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
