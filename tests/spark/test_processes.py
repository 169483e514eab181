"""Processes of a cluster are recognised surely and ended completely."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from sealbook.errors import InputError
from sealbook.spark import cluster_state
from sealbook.spark.cluster_state import ClusterState, Member
from sealbook.spark.processes import Process, belonging, end

FAMILY = """
import subprocess, sys, time
program = "import os, time; os.setpgid(0, 0); time.sleep(100)"  # as Python workers do
child = subprocess.Popen([sys.executable, "-c", program])
print(child.pid, flush=True)
time.sleep(100)
"""


@pytest.fixture
def family():
    """A leader of a session, and a child of it in a process group of its own."""
    started = []

    def start():
        leader = subprocess.Popen(
            [sys.executable, "-c", FAMILY, "leader"],
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        child = int(leader.stdout.readline())
        started.append((leader, child))
        return leader, child

    yield start
    for leader, child in started:
        for pid in (leader.pid, child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        leader.wait()
        leader.stdout.close()


def test_a_process_is_its_number_and_its_start(family):
    leader, _ = family()
    process = Process.of(leader.pid)
    assert process.alive
    assert not Process(process.pid, process.started + 1).alive
    assert Process.of(2**22 + 1) is None


def test_one_that_only_waits_to_be_noticed_is_not_alive(family):
    leader, _ = family()
    process = Process.of(leader.pid)
    leader.kill()
    time.sleep(0.2)
    assert not process.alive


def test_the_whole_session_is_ended(family):
    leader, child = family()
    assert {p.pid for p in belonging([Process.of(leader.pid)])} == {leader.pid, child}
    assert end([Process.of(leader.pid)])
    leader.wait()
    assert Process.of(child) is None or not Process.of(child).alive


def test_what_a_killed_leader_left_is_ended(family):
    leader, child = family()
    process = Process.of(leader.pid)
    leader.kill()
    leader.wait()
    assert Process.of(child).alive
    assert end([process])
    assert Process.of(child) is None or not Process.of(child).alive


def test_a_number_given_to_another_process_is_left_alone(family):
    leader, child = family()
    before = Process(leader.pid, Process.of(leader.pid).started - 5)
    assert belonging([before]) == []
    assert end([before])
    assert leader.poll() is None
    assert Process.of(child).alive


def test_who_has_the_directory_in_its_command_belongs_to_it_and_who_has_a_longer_name_does_not(tmp_path):
    program = "import time; time.sleep(100)"
    one = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "x")])
    other = subprocess.Popen([sys.executable, "-c", program, f"{tmp_path}y/x"])
    try:
        time.sleep(0.1)
        assert [p.pid for p in belonging([], tmp_path)] == [one.pid]
    finally:
        for each in (one, other):
            each.kill()
            each.wait()


def test_who_does_not_listen_is_killed():
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); "
        "time.sleep(100)"
    )
    deaf = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    deaf.stdout.readline()
    assert end([Process.of(deaf.pid)], seconds=0.3)
    assert deaf.wait() == -signal.SIGKILL
    deaf.stdout.close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path))
    return tmp_path


def state(tmp_path):
    directory = tmp_path / "sealbook-cluster-x"
    return ClusterState("lab", directory).with_member(Member("broker", "127.0.0.1:1", 5, 7))


def test_a_state_is_remembered(home):
    state(home).save()
    assert cluster_state.load("lab") == state(home)
    assert cluster_state.names() == ["lab"]
    state(home).forget()
    assert cluster_state.load("lab") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sealbook-cluster-x", "home"),
        ('"v":1', '"v":2'),
        ('"pid":5', '"pid":1'),
        ('"pid":5', '"pid":"5"'),
        ('"pid":5', '"pid":5,"x":1'),
        ('"name":"lab"', '"name":"other"'),
        ('"members"', '"member"'),
    ],
)
def test_a_state_changed_by_hand_removes_and_ends_nothing(home, before, after):
    state(home).save()
    path = home / "clusters/lab.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match="remove it"):
        cluster_state.load("lab")


RUN = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from guardian import guard
home, directory = Path(sys.argv[2]), Path(sys.argv[3])
guardian = guard(home, directory)
command = [sys.executable, "-c", "import time; time.sleep(300)"]
one = subprocess.Popen(command, env=os.environ | {"SEALBOOK_HOME": str(home)}, start_new_session=True)
two = subprocess.Popen([*command, f"{directory}/x"], start_new_session=True)
print(one.pid, two.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_a_test_run_started_ends_with_it_however_it_ends(tmp_path, number):
    """Of the tests' own helper, so that no cluster stays when they are cut short."""
    directory = tmp_path / "short"
    directory.mkdir()
    here = os.path.dirname(__file__)  # noqa: PTH120
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, here, tmp_path / "home", directory],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    started = [Process.of(int(pid)) for pid in run.stdout.readline().split()]
    assert all(process.alive for process in started)
    run.send_signal(number)
    run.communicate()
    deadline = time.monotonic() + 60
    while any(process.alive for process in started) or directory.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
