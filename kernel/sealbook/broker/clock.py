"""The broker's clock: the system's time, refused when it was set back or forward."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from sealbook.errors import RefusedError

#: How far the system's time may stray from the time that really passed.
SKEW: Final = timedelta(minutes=5)


class ClockError(RefusedError):
    """The clock was moved, so nothing that expires can be judged."""


class GuardedClock:
    """Gives the time, and refuses when it has moved against the counter that nobody can set.

    An attacker who sets the clock back revives expired collateral and policies. The system's time is
    compared with the time since boot, which also runs during suspend, from one fixed start, so that
    many small steps add up.

    Parameters
    ----------
    clock
        Gives aware datetimes.
    last_seen
        A time that is certainly past (the last entry of the audit log), so that a restart does not forget.
    skew
        What is tolerated.
    elapsed
        Seconds of a counter that is not settable.
    """

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        last_seen: datetime | None = None,
        skew: timedelta = SKEW,
        elapsed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._skew = skew
        self._last_seen = last_seen
        self._start = clock().astimezone(UTC)
        self._start_elapsed = elapsed()

    def now(self) -> datetime:
        """Return the time (UTC).

        Raises
        ------
        ClockError
            The clock was moved by more than the tolerated skew.
        """
        now = self._clock().astimezone(UTC)
        expected = self._start + timedelta(seconds=self._elapsed() - self._start_elapsed)
        if abs(now - expected) > self._skew:
            raise ClockError(
                "This machine's clock was set to another time since the broker started, so nothing is "
                "released: set the clock right and restart Jupyter."
            )
        if self._last_seen is not None and now < self._last_seen - self._skew:
            raise ClockError(
                "This machine's clock is behind the last entry of the audit log "
                f"({self._last_seen:%Y-%m-%d %H:%M} UTC), so nothing is released: set the clock right, "
                "or if it is right, move the log away."
            )
        return now
