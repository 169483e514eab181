from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sealbook.broker import ClockError, GuardedClock

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Machine:
    """A machine whose clock can be set, and whose counter since boot cannot."""

    def __init__(self) -> None:
        self.wall, self.boot = START, 1000.0

    def passes(self, **delta) -> None:
        self.wall += timedelta(**delta)
        self.boot += timedelta(**delta).total_seconds()

    def guarded(self, **kwargs) -> GuardedClock:
        return GuardedClock(lambda: self.wall, elapsed=lambda: self.boot, **kwargs)


def test_time_that_passes_is_no_move_of_the_clock():
    machine = Machine()
    clock = machine.guarded()
    machine.passes(days=400)
    assert clock.now() == START + timedelta(days=400)


@pytest.mark.parametrize("minutes", [-6, 6, -600, 60 * 24 * 365])
def test_attack_52_a_clock_set_back_or_forward_is_refused(minutes):
    machine = Machine()
    clock = machine.guarded()
    machine.passes(hours=1)
    machine.wall += timedelta(minutes=minutes)
    with pytest.raises(ClockError, match="clock"):
        clock.now()


def test_attack_52_many_small_steps_add_up():
    machine = Machine()
    clock = machine.guarded()
    for _ in range(5):
        machine.wall -= timedelta(minutes=1)
        clock.now()
    machine.wall -= timedelta(minutes=1)
    with pytest.raises(ClockError):
        clock.now()


def test_attack_52_a_restart_does_not_forget_a_later_time():
    machine = Machine()
    with pytest.raises(ClockError, match="behind the last entry"):
        machine.guarded(last_seen=START + timedelta(minutes=6)).now()
    assert machine.guarded(last_seen=START + timedelta(minutes=4)).now() == START


def test_the_correction_of_a_few_seconds_is_tolerated():
    machine = Machine()
    clock = machine.guarded()
    machine.wall -= timedelta(seconds=20)
    assert clock.now() == START - timedelta(seconds=20)
