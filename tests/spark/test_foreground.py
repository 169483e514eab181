"""A node in the foreground: how it ends, and that nothing of it stays. The nodes here are small programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealbook.spark.processes import Process

pytestmark = pytest.mark.timeout(120)

#: Does what the foreground command does beside a node, with the node's program and a directory given.
WATCH = """
import ctypes, sys
from pathlib import Path
from sealbook.image.owned_directory import owned_directory
from sealbook.spark.foreground import _watch
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # is given orphans, as the first process of a container
with owned_directory(Path(sys.argv[1]), "node-") as place:
    status = _watch([sys.executable, "-c", sys.argv[2], sys.argv[1]], place)
sys.exit(status)
"""
#: A node with a process of its own in its session, and one more level.
FAMILY = """
import os, sys, time
from pathlib import Path
def be(name, *others):
    pid = os.fork()
    if pid == 0:
        if others: be(*others)
        (Path(sys.argv[1]) / f"pid.{name}").write_text(str(os.getpid()))
        while True: time.sleep(60)
be("child", "grandchild")
(Path(sys.argv[1]) / "pid.node").write_text(str(os.getpid()))
while True: time.sleep(60)
"""


def watch(directory: Path, node: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WATCH, str(directory), node])


def until(condition, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def family(directory: Path) -> list[Process]:
    def complete():
        found = [directory / f"pid.{name}" for name in ("node", "child", "grandchild")]
        if all(path.exists() and path.read_text() for path in found):
            return [Process.of(int(path.read_text())) for path in found]
        return None

    return until(complete)


@pytest.mark.parametrize(("ending", "status"), [("0", 0), ("3", 3)])
def test_it_ends_with_the_nodes_status(tmp_path, ending, status):
    assert watch(tmp_path, f"import sys; sys.exit({ending})").wait() == status
    assert list(tmp_path.glob("node-*")) == []


def test_a_node_that_a_signal_ended_is_told_as_shells_do(tmp_path):
    assert watch(tmp_path, "import os; os.kill(os.getpid(), 9)").wait() == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_ends_everything_and_takes_its_directory_away(tmp_path, number):
    watcher = watch(tmp_path, FAMILY)
    processes = family(tmp_path)
    assert len(list(tmp_path.glob("node-*"))) == 1
    watcher.send_signal(number)
    assert watcher.wait() == 0
    assert [each for each in processes if each.alive] == []
    assert list(tmp_path.glob("node-*")) == []


def test_what_a_node_that_ended_left_running_ends_too(tmp_path):
    watcher = watch(tmp_path, FAMILY)
    node, *others = family(tmp_path)
    os.kill(node.pid, signal.SIGKILL)
    assert watcher.wait() == 137
    assert [each for each in others if each.alive] == []


def test_killed_it_takes_the_node_with_it_and_the_next_start_takes_its_directory_away(tmp_path):
    watcher = watch(tmp_path, FAMILY)
    node, *others = family(tmp_path)
    watcher.kill()
    watcher.wait()
    try:
        until(lambda: not node.alive)
    finally:
        for each in others:  # real ones have lifelines of their own
            os.kill(each.pid, signal.SIGKILL)
    assert len(list(tmp_path.glob("node-*"))) == 1
    assert watch(tmp_path, "pass").wait() == 0
    assert list(tmp_path.glob("node-*")) == []


def test_orphans_do_not_stay_as_zombies(tmp_path):
    node = """
import os, sys, time
from pathlib import Path
if os.fork() == 0:
    orphan = os.fork()
    if orphan:
        (Path(sys.argv[1]) / "orphan").write_text(str(orphan))
    else:
        time.sleep(0.5)
    os._exit(0)
os.wait()
time.sleep(60)
"""
    watcher = watch(tmp_path, node)
    place = tmp_path / "orphan"
    pid = until(lambda: place.exists() and place.read_text())
    until(lambda: not Path("/proc", pid).exists())
    watcher.terminate()
    assert watcher.wait() == 0


def test_the_node_itself_has_no_signal_blocked(tmp_path):
    node = """
import sys
from pathlib import Path
lines = Path("/proc/self/status").read_text().splitlines()
(Path(sys.argv[1]) / "blocked").write_text(next(l for l in lines if l.startswith("SigBlk:")).split()[1])
"""
    assert watch(tmp_path, node).wait() == 0
    assert int((tmp_path / "blocked").read_text(), 16) == 0
