"""What the Spark jobs of a cell are doing, shown below it; and their end when the cell is interrupted.

Every job that a cell starts has the cell's tag: a job has the tags of the JVM's thread that starts it, and
PySpark gives each Python thread one. A thread of its own looks at the jobs of the tag, over a connection of
its own, because the cell's is busy for as long as a job runs.
"""

from __future__ import annotations

import contextlib
import contextvars
import html
import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

#: Seconds that a cell's jobs must have run before anything is shown.
PATIENCE: Final = 0.5

#: Seconds between two looks, while jobs run and while none does.
_BUSY, _IDLE = 0.25, 0.5

#: Seconds for which an interrupted cell's jobs are cancelled again: the JVM may be about to start another.
_CANCEL_FOR: Final = 3.0

#: How often the jobs of an interrupted cell are looked for where that fails.
_ATTEMPTS: Final = 5

_WIDTH: Final = 30

#: What a page reads that shows the running cell's jobs elsewhere too; nothing of it is proven.
PROGRESS_TYPE: Final = "application/vnd.sealbook.progress+json"

_INTERRUPT: Final = "spark.job.interruptOnCancel"


@dataclass(frozen=True)
class Snapshot:
    """What the jobs of one cell are doing.

    Attributes
    ----------
    jobs, active
        How many there were, and how many run.
    stages
        How many run.
    tasks, done, running
        Of the stages that run.
    """

    jobs: int = 0
    active: int = 0
    stages: int = 0
    tasks: int = 0
    done: int = 0
    running: int = 0

    def text(self, where: str) -> str:
        """Return one line."""
        part = self.done / self.tasks if self.tasks else 0.0
        bar = "#" * round(part * _WIDTH)
        return (
            f"Spark ({where}): [{bar:<{_WIDTH}}] {self.done} of {self.tasks} tasks, {self.running} running, "
            f"{_count(self.stages, 'stage')}, job {self.jobs}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class ContextJobs:
    """The jobs of one SparkContext."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._jsc = context._jsc
        self._tracker: Any = None

    def of(self, context: Any) -> bool:
        """Tell whether they are the jobs of this context."""
        return self._context is context

    def look(self, tag: str) -> Snapshot:
        """Return what the jobs of a tag do."""
        if self._tracker is None:
            self._tracker = self._jsc.sc().statusTracker()
        jobs = self._ids(self._tracker.getJobIdsForTag(tag))
        active = self._ids(self._tracker.getActiveJobIds()) & jobs if jobs else set()
        if not active:
            return Snapshot(jobs=len(jobs))
        running = self._ids(self._tracker.getActiveStageIds())
        stages = tasks = done = at_work = 0
        for job in active:
            info = self._tracker.getJobInfo(job)
            if info.isEmpty():
                continue
            for stage in self._ids(info.get().stageIds()) & running:
                found = self._tracker.getStageInfo(stage)
                if found.isDefined():
                    known = found.get()
                    stages += 1
                    tasks += known.numTasks()
                    done += known.numCompletedTasks()
                    at_work += known.numActiveTasks()
        return Snapshot(len(jobs), len(active), stages, tasks, done, at_work)

    def cancel(self, tag: str) -> None:
        """End the jobs of a tag."""
        self._jsc.cancelJobsWithTag(tag)

    def _ids(self, array: Any) -> set[int]:
        # One question for all, not one for each element.
        return set(json.loads(self._context._jvm.java.util.Arrays.toString(array)))


class Bar:
    """One display in the output of one cell.

    Parameters
    ----------
    publish
        As the shell's ``display_pub.publish``, bound to the cell.
    where
        Named in it.
    """

    def __init__(self, publish: Callable[..., Any], where: str) -> None:
        self._publish = publish
        self._where = where
        self._id = f"sealbook-spark-{secrets.token_hex(6)}"
        self._shown = ""

    def show(self, snapshot: Snapshot) -> None:
        """Show or update it."""
        part = f'<progress max="{max(snapshot.tasks, 1)}" value="{snapshot.done}"></progress> '
        self._put(snapshot, snapshot.text(self._where), part + html.escape(self._plain(snapshot)))

    def close(self, snapshot: Snapshot, seconds: float, *, cancelled: bool) -> None:
        """Replace it by what was done, if it was shown."""
        if self._shown:
            end = "cancelled after" if cancelled else "in"
            # What was shown had jobs; none now means that nobody is left who could be asked about them.
            what = f"{_count(snapshot.jobs, 'job')} {end}" if snapshot.jobs else "ended after"
            line = f"Spark ({self._where}): {what} {seconds:.1f} s"
            self._put(snapshot, line, html.escape(line), ended=True)

    def _plain(self, snapshot: Snapshot) -> str:
        return (
            f"{snapshot.done} of {snapshot.tasks} tasks, {snapshot.running} running, "
            f"{_count(snapshot.stages, 'stage')}, job {snapshot.jobs} (Spark, {self._where})"
        )

    def _put(self, snapshot: Snapshot, text: str, page: str, *, ended: bool = False) -> None:
        if text != self._shown:
            facts = asdict(snapshot) | {"where": self._where, "ended": ended}
            data = {"text/plain": text, "text/html": page, PROGRESS_TYPE: facts}
            self._publish(data, {}, transient={"display_id": self._id}, update=bool(self._shown))
            self._shown = text


class CellWatch:
    """Watches the jobs of the cell that runs.

    Parameters
    ----------
    publish
        The shell's ``display_pub.publish``.
    where
        Says where code runs, for the bar.
    """

    def __init__(self, publish: Callable[..., Any], where: Callable[[], str]) -> None:
        self._publish = publish
        self._where = where
        self._numbers = itertools.count(1)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._context: Any = None
        self._cell: _Cell | None = None
        self._tagged: str | None = None

    def install(self, shell: Any) -> None:
        """Follow the cells of a shell."""
        shell.events.register("pre_run_cell", self._before)
        shell.events.register("post_run_cell", self._after)

    def made(self, context: Any) -> None:
        """Take notice of a new SparkContext; called in the thread that made it."""
        with self._wake:
            self._context = context
            cell = self._cell
        if cell is not None:
            self._tag(cell)
            self._start(cell)

    def interrupt(self) -> None:
        """Cancel the jobs of the cell that runs; from any thread, returns at once."""
        with self._wake:
            if self._cell is not None:
                self._cell.cancelled, self._cell.delivered = time.monotonic(), None
                self._wake.notify_all()

    def _before(self, info: Any) -> None:
        # The display belongs to the cell whose message is handled in this context.
        cell = _Cell(f"sealbook-cell-{next(self._numbers)}", contextvars.copy_context(), self._publish)
        with self._wake:
            self._cell = cell
        if self._live() is not None:
            self._tag(cell)
            self._start(cell)

    def _after(self, result: Any) -> None:
        with self._wake:
            cell, self._cell = self._cell, None
            self._wake.notify_all()
        if cell is not None and cell.watched:
            cell.closed.wait(2)

    def _live(self) -> Any:
        context = self._context
        return context if getattr(context, "_jsc", None) else None

    def _tag(self, cell: _Cell) -> None:
        """Give the jobs that this thread starts the cell's tag, and no earlier cell's."""
        context = self._live()
        # A session that cannot be talked to says so where the cell uses it.
        with contextlib.suppress(Exception):
            if self._tagged is not None:
                context.removeJobTag(self._tagged)
            self._tagged = cell.tag
            context.addJobTag(cell.tag)
            if context.getLocalProperty(_INTERRUPT) is None:
                # Otherwise a task that waits would go on until it looks whether it was cancelled.
                context.setInterruptOnCancel(True)

    def _start(self, cell: _Cell) -> None:
        with self._wake:
            cell.watched = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="sealbook-spark-progress", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    # -- in the watching thread --------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._cell is not None and self._cell.watched, timeout=60)
                cell = self._cell
            if cell is None or not cell.watched:
                continue
            for _ in range(_ATTEMPTS):
                try:
                    self._watch(cell)
                    break
                except Exception:  # the JVM may be gone; the cell says so itself
                    # But what was interrupted must not go on because of one call that failed.
                    if not cell.due_to_cancel:
                        break
                    time.sleep(0.1)
            if not cell.closed.is_set():
                with contextlib.suppress(Exception):
                    self._finish(cell, Snapshot())
                cell.closed.set()
            with self._wake:
                cell.watched = False

    def _watch(self, cell: _Cell) -> None:
        jobs: ContextJobs | None = None
        snapshot = Snapshot()
        since: float | None = None
        quiet = 0
        while True:
            ended = self._pause(cell, busy=since is not None)
            context = self._live()
            if context is None:
                if ended:
                    break
                continue
            if jobs is None or not jobs.of(context):
                jobs = ContextJobs(context)
            if cell.due_to_cancel:
                jobs.cancel(cell.tag)
                cell.delivered = cell.delivered or time.monotonic()
            snapshot = jobs.look(cell.tag)
            if snapshot.active:
                quiet = 0
                since = since or time.monotonic()
                if ended and not cell.due_to_cancel:
                    break
                if not ended and time.monotonic() - since >= PATIENCE:
                    cell.show(self._where(), snapshot)
            else:
                quiet, since = quiet + 1, None
                # Twice, because the JVM may have been between two jobs.
                if ended and (quiet > 1 or not cell.due_to_cancel):
                    break
        self._finish(cell, snapshot)

    def _pause(self, cell: _Cell, *, busy: bool) -> bool:
        """Wait until the next look is due; returns whether the cell has ended."""
        with self._wake:
            if self._cell is cell or cell.due_to_cancel:
                seconds = _BUSY if busy or cell.due_to_cancel else _IDLE
                # An interrupt is not waited for, except between two attempts.
                if not cell.fresh_interrupt():
                    self._wake.wait(seconds)
                    cell.fresh_interrupt()
            return self._cell is not cell

    def _finish(self, cell: _Cell, snapshot: Snapshot) -> None:
        cell.close(snapshot)
        cell.closed.set()


class _Cell:
    """One run of one cell."""

    def __init__(self, tag: str, context: contextvars.Context, publish: Callable[..., Any]) -> None:
        self.tag = tag
        self.bar: Bar | None = None
        self.watched = False
        #: When it was interrupted last, and when its jobs were first cancelled after that.
        self.cancelled: float | None = None
        self.delivered: float | None = None
        self._seen: float | None = None
        self.closed = threading.Event()
        self._context = context
        self._publish = publish
        self._began = time.monotonic()

    @property
    def due_to_cancel(self) -> bool:
        """Whether its jobs are still to be cancelled, wherever they come from."""
        if self.cancelled is None:
            return False
        # Counted from the first time it was done: a busy machine may come to it only after seconds.
        return self.delivered is None or time.monotonic() - self.delivered < _CANCEL_FOR

    def fresh_interrupt(self) -> bool:
        """Return whether it was interrupted since this was last asked."""
        fresh, self._seen = self.cancelled != self._seen, self.cancelled
        return fresh

    def show(self, where: str, snapshot: Snapshot) -> None:
        if self.bar is None:
            self.bar = Bar(lambda *a, **k: self._context.run(self._publish, *a, **k), where)
        self.bar.show(snapshot)

    def close(self, snapshot: Snapshot) -> None:
        if self.bar is not None:
            self.bar.close(snapshot, time.monotonic() - self._began, cancelled=self.cancelled is not None)
