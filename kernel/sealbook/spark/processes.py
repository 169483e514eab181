"""The processes of a cluster on this machine: recognised surely, and ended completely.

A process is its number and the time it was started at, because numbers are given anew. Each node is started
as the leader of a session of its own, which whatever it starts stays in, whoever its parent becomes when the
node is killed: Spark's executors and Python workers change at most their process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process, also after its end.

    Attributes
    ----------
    started
        In clock ticks since the machine's start; from ``/proc/PID/stat``.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has this number now."""
        found = _stat(pid)
        return cls(pid, found.started) if found is not None else None

    @property
    def alive(self) -> bool:
        """Whether it still runs; not when it only waits for its parent to notice that it ended."""
        found = _stat(self.pid)
        return found is not None and found.started == self.started and found.state not in "ZX"


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, which may itself have brackets and spaces.
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], session=int(fields[3]), started=int(fields[19]))


def belonging(leaders: Iterable[Process], directory: Path | None = None) -> list[Process]:
    """Return every process in a session of `leaders`, or that was started with `directory` in its command.

    A session whose leader is dead keeps its number from being given anew as long as anything runs in it.
    Where the number belongs to another process by now, the session has ended.
    """
    sessions = set()
    for leader in leaders:
        now = _stat(leader.pid)
        if now is None or now.started == leader.started:
            sessions.add(leader.pid)
    own = {os.getpid(), os.getppid()}
    needle = os.fsencode(str(directory)) + b"/" if directory is not None else None
    found = []
    for pid in _pids():
        seen = _stat(pid)
        if seen is None or seen.state in "ZX" or pid in own:
            continue
        if seen.session in sessions or (needle is not None and needle in _command(pid)):
            found.append(Process(pid, seen.started))
    return found


def end(leaders: Iterable[Process], directory: Path | None = None, *, seconds: float = 10) -> bool:
    """End all of :func:`belonging`: ask, wait for `seconds`, then kill. Returns whether nothing is left."""
    leaders = list(leaders)
    deadline = time.monotonic() + seconds
    _signal(belonging(leaders, directory), signal.SIGTERM)
    while left := belonging(leaders, directory):
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        if time.monotonic() > deadline + seconds:
            return False
        time.sleep(0.05)
    return True


def _signal(processes: Iterable[Process], number: int) -> None:
    for process in processes:
        if process.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _pids() -> Iterator[int]:
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            yield int(entry.name)


def _command(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
