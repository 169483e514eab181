"""What a cell's jobs show below it, and that they end with it when it is interrupted."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from sealbook.jupyter.kernel import AttestedKernel
from sealbook.spark import progress
from sealbook.spark.progress import Bar, CellWatch, Snapshot

# -- how it looks ------------------------------------------------------------------------------


class Published:
    """In place of a shell's display publisher."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], str, bool]] = []

    def __call__(self, data: dict[str, str], metadata: Any, *, transient: Any, update: bool) -> None:
        self.calls.append((data, transient["display_id"], update))


def test_one_display_is_made_and_then_updated_and_closed() -> None:
    published = Published()
    bar = Bar(published, "local")
    bar.show(Snapshot(jobs=1, active=1, stages=1, tasks=10, done=5, running=2))
    bar.show(Snapshot(jobs=1, active=1, stages=1, tasks=10, done=5, running=2))
    bar.show(Snapshot(jobs=2, active=1, stages=2, tasks=10, done=10, running=0))
    bar.close(Snapshot(jobs=2), 3.21, cancelled=False)
    assert [update for _, _, update in published.calls] == [False, True, True]
    assert len({display for _, display, _ in published.calls}) == 1
    first, _, last = (data["text/plain"] for data, _, _ in published.calls)
    assert "[###############               ] 5 of 10 tasks, 2 running, 1 stage, job 1" in first
    assert last == "Spark (local): 2 jobs in 3.2 s"


def test_what_is_shown_is_escaped_and_plain_text_beside_the_page() -> None:
    published = Published()
    bar = Bar(published, "cluster <b>")
    bar.show(Snapshot(jobs=1, active=1, stages=1, tasks=2, done=1))
    bar.close(Snapshot(jobs=1), 1.0, cancelled=True)
    for data, _, _ in published.calls:
        assert "<b>" not in data["text/html"]
        assert "<progress" not in data["text/plain"]
    assert "1 job cancelled after 1.0 s" in published.calls[-1][0]["text/plain"]


def test_the_numbers_are_there_for_pages_that_show_them_elsewhere_too() -> None:
    published = Published()
    bar = Bar(published, "local")
    bar.show(Snapshot(jobs=1, active=1, stages=1, tasks=10, done=5, running=2))
    bar.close(Snapshot(jobs=1), 1.0, cancelled=False)
    shown, closed = (data["application/vnd.sealbook.progress+json"] for data, _, _ in published.calls)
    numbers = {"jobs": 1, "active": 1, "stages": 1, "tasks": 10, "done": 5, "running": 2}
    assert shown == numbers | {"where": "local", "ended": False}
    assert closed["ended"] is True


def test_a_bar_that_was_never_shown_is_not_closed_either() -> None:
    published = Published()
    Bar(published, "local").close(Snapshot(jobs=1), 0.1, cancelled=False)
    assert published.calls == []


# -- the watch ---------------------------------------------------------------------------------


class FakeContext:
    """A SparkContext with as much as the watch uses."""

    def __init__(self) -> None:
        self._jsc = object()
        self.tags: set[str] = set()
        self.properties: dict[str, str] = {}

    def addJobTag(self, tag: str) -> None:
        self.tags.add(tag)

    def removeJobTag(self, tag: str) -> None:
        self.tags.discard(tag)

    def getLocalProperty(self, name: str) -> str | None:
        return self.properties.get(name)

    def setInterruptOnCancel(self, value: bool) -> None:
        self.properties["spark.job.interruptOnCancel"] = str(value)


class FakeJobs:
    """Jobs that run until they are cancelled `lives` times."""

    lives = 1
    active = 1
    cancelled: list[str] = []
    threads: set[str] = set()

    def __init__(self, context: Any) -> None:
        self._context = context

    def of(self, context: Any) -> bool:
        return self._context is context

    def look(self, tag: str) -> Snapshot:
        FakeJobs.threads.add(threading.current_thread().name)
        alive = FakeJobs.active if len(FakeJobs.cancelled) < FakeJobs.lives else 0
        return Snapshot(jobs=1, active=alive, stages=1, tasks=4, done=1, running=1)

    def cancel(self, tag: str) -> None:
        FakeJobs.cancelled.append(tag)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[CellWatch, FakeContext, Published]]:
    monkeypatch.setattr(progress, "ContextJobs", FakeJobs)
    FakeJobs.lives, FakeJobs.active, FakeJobs.cancelled, FakeJobs.threads = 1, 1, [], set()
    published = Published()
    watch = CellWatch(published, lambda: "local")
    context = FakeContext()
    watch.made(context)
    yield watch, context, published
    watch._after(None)


def test_each_cell_has_its_own_tag_and_only_that(watched: Any) -> None:
    watch, context, _ = watched
    FakeJobs.active = 0
    tags = []
    for _ in range(3):
        watch._before(None)
        assert len(context.tags) == 1
        tags += context.tags
        watch._after(None)
    assert len(set(tags)) == 3


def test_nothing_is_shown_of_jobs_that_are_short(watched: Any) -> None:
    watch, _, published = watched
    watch._before(None)
    time.sleep(0.4)
    FakeJobs.active = 0
    watch._after(None)
    assert published.calls == []


def test_long_jobs_are_shown_by_a_thread_of_the_watchs_own_in_the_cells_context(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _, published = watched
    cell = contextvars.ContextVar("cell", default="none")
    cell.set("this one")
    found: list[str] = []
    publish = watch._publish
    watch._publish = lambda *a, **k: (found.append(cell.get()), publish(*a, **k))
    watch._before(None)
    time.sleep(1.6)
    watch._after(None)
    assert published.calls
    assert set(found) == {"this one"}
    assert FakeJobs.threads == {"sealbook-spark-progress"}


def test_an_interrupt_cancels_without_waiting_for_the_next_look_and_again_until_nothing_is_left(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _, _ = watched
    FakeJobs.lives = 3
    watch._before(None)
    time.sleep(0.7)
    monkeypatch.setattr(progress, "_BUSY", 60.0)
    time.sleep(0.7)  # now it waits for the minute
    watch.interrupt()
    end = time.monotonic() + 30
    while not FakeJobs.cancelled:
        time.sleep(0.01)
        assert time.monotonic() < end
    monkeypatch.setattr(progress, "_BUSY", 0.1)
    watch._after(None)
    end = time.monotonic() + 30
    while len(FakeJobs.cancelled) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(FakeJobs.cancelled) >= 3
    assert len(set(FakeJobs.cancelled)) == 1


def test_an_interrupt_cancels_also_where_the_watch_comes_to_it_late(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine can be so busy that a look at the jobs takes seconds."""
    watch, _, _ = watched
    monkeypatch.setattr(progress, "_CANCEL_FOR", 0.2)
    stock = FakeJobs.look
    looking = threading.Event()

    def slow(self: FakeJobs, tag: str) -> Snapshot:
        looking.set()
        time.sleep(0.8)
        return stock(self, tag)

    monkeypatch.setattr(FakeJobs, "look", slow)
    watch._before(None)
    assert looking.wait(5)
    watch.interrupt()
    end = time.monotonic() + 10
    while not FakeJobs.cancelled and time.monotonic() < end:
        time.sleep(0.05)
    watch._after(None)
    assert FakeJobs.cancelled


def test_an_interrupt_cancels_also_where_a_call_to_the_jvm_failed(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _, _ = watched
    stock, failed = FakeJobs.cancel, []

    def fails_first(self: FakeJobs, tag: str) -> None:
        if not failed:
            failed.append(tag)
            raise OSError("the connection broke")
        stock(self, tag)

    monkeypatch.setattr(FakeJobs, "cancel", fails_first)
    watch._before(None)
    time.sleep(0.7)
    watch.interrupt()
    end = time.monotonic() + 10
    while not FakeJobs.cancelled and time.monotonic() < end:
        time.sleep(0.05)
    watch._after(None)
    assert failed
    assert FakeJobs.cancelled


def test_an_interrupt_between_cells_cancels_nothing(watched: Any) -> None:
    watch, _, _ = watched
    watch.interrupt()
    watch._before(None)
    time.sleep(0.7)
    assert FakeJobs.cancelled == []


def test_a_jvm_that_is_gone_ends_the_watch_of_the_cell_and_not_the_thread(watched: Any) -> None:
    watch, _, _ = watched

    def gone(self: FakeJobs, tag: str) -> Snapshot:
        raise RuntimeError("gone")

    stock = FakeJobs.look
    FakeJobs.look = gone  # type: ignore[method-assign]
    try:
        watch._before(None)
        time.sleep(0.7)
        watch._after(None)
    finally:
        FakeJobs.look = stock  # type: ignore[method-assign]
    watch._before(None)
    time.sleep(1.0)
    assert FakeJobs.threads


def test_a_cell_hears_of_its_interrupt_before_its_jobs_are_cancelled() -> None:
    """Otherwise it sometimes gets the error of a cancelled job, which it may take for its own."""
    done: list[str] = []
    kernel: Any = SimpleNamespace(
        spark=SimpleNamespace(interrupt=lambda: done.append("cancel")),
        _signal_interrupt=lambda: done.append("signal"),
        io_loop=SimpleNamespace(add_callback=lambda call: done.append("wake")),
    )
    AttestedKernel._send_interrupt_children(kernel)
    assert done == ["signal", "cancel", "wake"]


# -- in the real kernel ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manager(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    started = KernelManager(kernel_name=kernel_name)
    started.start_kernel(cwd=str(tmp_path_factory.mktemp("notebook")))
    yield started
    started.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def client(manager: KernelManager) -> Iterator[Any]:
    opened = manager.client()
    opened.start_channels()
    opened.wait_for_ready(timeout=60)
    yield opened
    opened.stop_channels()


def run(client: Any, code: str, during: Any = None) -> tuple[list[dict[str, Any]], float]:
    """Return the messages of a cell, and how long it took."""
    messages: list[dict[str, Any]] = []

    def collect(message: dict[str, Any]) -> None:
        messages.append(message)
        if during is not None:
            during(message)

    began = time.monotonic()
    client.execute_interactive(code, timeout=120, output_hook=collect)
    return messages, time.monotonic() - began


def texts(messages: list[dict[str, Any]], *kinds: str) -> list[str]:
    return [m["content"]["data"]["text/plain"] for m in messages if m["msg_type"] in kinds]


def printed(messages: list[dict[str, Any]]) -> str:
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


SLOW = "import time\nprint(sc.parallelize(range(6), 6).map(lambda x: time.sleep({seconds}) or x).sum())"
ACTIVE = "print(len(sc.statusTracker().getActiveJobsIds()))"


def test_a_long_job_shows_its_tasks_below_the_cell(client: Any) -> None:
    run(client, "spark.range(1).count(); 0")
    messages, _ = run(client, SLOW.format(seconds=0.7))
    shown = texts(messages, "display_data")
    updates = texts(messages, "update_display_data")
    assert len(shown) == 1
    assert "of 6 tasks" in shown[0]
    assert updates[-1].startswith("Spark (local): 1 job in ")
    assert "15" in printed(messages)
    cell = {m["parent_header"]["msg_id"] for m in messages}
    assert len(cell) == 1


@pytest.mark.parametrize("caught", [False, True], ids=["", "and-the-cell-catches-it"])
def test_an_interrupt_cancels_the_jobs_and_the_next_cell_works(
    caught: bool, client: Any, manager: KernelManager, tmp_path: Path
) -> None:
    code = (
        "import time, threading\n"
        "def work(x):\n"
        "    time.sleep(600)\n"  # longer than run() waits for a cell
        "    return x\n"
        "jobs = sc.parallelize(range(2), 2).map(work)\n"
        "print('ready', flush=True)\n"
    )
    code += (
        "try:\n    jobs.sum()\nexcept KeyboardInterrupt:\n    print('caught')\n" if caught else "jobs.sum()\n"
    )

    def during(message: dict[str, Any]) -> None:
        if "ready" in str(message["content"].get("text", "")):
            time.sleep(2)
            manager.interrupt_kernel()

    messages, _ = run(client, code, during)
    assert ("caught" in printed(messages)) is caught
    error = [m["content"]["ename"] for m in messages if m["msg_type"] == "error"]
    assert error == ([] if caught else ["KeyboardInterrupt"])
    assert "Traceback" not in printed(messages)
    end = time.monotonic() + 60
    while printed(run(client, ACTIVE)[0]).strip() != "0":
        assert time.monotonic() < end, "the job still runs"
    assert printed(run(client, "print(spark.range(7).count())")[0]).strip() == "7"


def test_a_cell_that_does_other_things_is_interrupted_as_ever(client: Any, manager: KernelManager) -> None:
    def during(message: dict[str, Any]) -> None:
        if "ready" in str(message["content"].get("text", "")):
            manager.interrupt_kernel()

    messages, _ = run(client, "import time\nprint('ready', flush=True)\ntime.sleep(600)", during)
    assert [m["content"]["ename"] for m in messages if m["msg_type"] == "error"] == ["KeyboardInterrupt"]
