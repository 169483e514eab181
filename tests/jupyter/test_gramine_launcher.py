"""The launcher of kernels in Gramine, with a stand-in for it: what Gramine gets, and that it all ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import wait_until

from gramine_stand_in import GramineStandIn

ADDRESS = "tcp://127.0.0.1:40123"

#: Writes down what it was started with, and starts a program that would outlive it.
RECORD = """
import json, os, signal, subprocess, sys, time
grandchild = subprocess.Popen(["sleep", "600"], start_new_session=True)
found = {
    "argv": sys.argv,
    "cwd": os.getcwd(),
    "pid": os.getpid(),
    "grandchild": grandchild.pid,
    "stdin": os.readlink("/proc/self/fd/0"),
    "descriptors": [int(name) for name in os.listdir("/proc/self/fd")],
    "links": {name: os.path.realpath(name) for name in ("image", "work", "data")},
    "parameters": open("launch/registration").read(),
    "sigint": str(signal.getsignal(signal.SIGINT)),
}
with open(PLACE + "/record.new", "w") as file:
    json.dump(found, file)
os.rename(PLACE + "/record.new", PLACE + "/record.json")
"""


class Launcher:
    """A started launcher and what the stand-in recorded."""

    def __init__(self, gramine: GramineStandIn, directory: Path) -> None:
        self.gramine = gramine
        self.directory = directory
        self.home = directory / "sealbook"
        for name in ("image", "work", "data"):
            (directory / name).mkdir()
        self.process: subprocess.Popen[str] | None = None

    def start(self, behaviour: str, *arguments: str, tee: str = "gramine-direct") -> subprocess.Popen[str]:
        self.gramine.behave(RECORD + behaviour)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-B", "-m", "sealbook.jupyter.gramine_launcher", "--tee", tee),
                *("--image", str(self.directory / "image"), *arguments, f"--registration={ADDRESS}"),
            ],
            cwd=self.directory / "work",
            env={
                "PATH": self.gramine.path,
                "SEALBOOK_HOME": str(self.home),
                "SECRET_OF_THE_HOST": "value",
                "LD_LIBRARY_PATH": "/nonexistent",
                "PYTHONPATH": "/nonexistent",
            },
            stdin=subprocess.PIPE,
            # No pipe: what outlives a launcher would keep it open.
            stdout=self.output.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.process

    @property
    def output(self) -> Path:
        return self.directory / "output"

    @property
    def record(self) -> dict[str, Any]:
        file = self.gramine.place / "record.json"
        assert wait_until(file.exists), self.process and self.process.poll()
        return dict(json.loads(file.read_text()))

    @property
    def left(self) -> list[Path]:
        """Launch directories that are there."""
        return list((self.home / "launches").glob("launch-*"))

    def clear(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
        file = self.gramine.place / "record.json"
        if file.exists():
            for name in ("pid", "grandchild"):
                if alive(self.record[name]):
                    os.kill(self.record[name], signal.SIGKILL)


@pytest.fixture
def launcher(stand_in: GramineStandIn, tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(stand_in, tmp_path)
    yield launcher
    launcher.clear()


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_ended(launcher: Launcher) -> bool:
    record = launcher.record
    return wait_until(lambda: not alive(record["pid"]) and not alive(record["grandchild"]), seconds=10)


def test_gramine_gets_the_image_and_nothing_of_the_host(launcher):
    process = launcher.start("sys.exit(0)")
    assert process.wait(30) == 0, launcher.output.read_text()
    record = launcher.record
    assert record["argv"][1:] == ["image/kernel"]
    assert launcher.gramine.environment == {"PATH": launcher.gramine.path}
    assert record["stdin"] == "/dev/null"
    # Nothing inherited: 3 is the directory that is being listed.
    assert set(record["descriptors"]) <= {0, 1, 2, 3}


def test_gramine_runs_in_the_launch_directory(launcher):
    launcher.start("sys.exit(0)", "--data", str(launcher.directory / "data")).wait(30)
    record = launcher.record
    assert Path(record["cwd"]).parent == launcher.home / "launches"
    assert record["links"] == {name: str(launcher.directory / name) for name in ("image", "work", "data")}


@pytest.mark.parametrize("tee", ["gramine-direct", "gramine-sgx"])
def test_the_tee_says_which_program_runs(launcher, tee):
    assert launcher.start("sys.exit(0)", tee=tee).wait(30) == 0
    assert Path(launcher.record["argv"][0]).stem == tee


def test_the_launch_parameters_are_in_the_file_and_never_in_the_arguments(launcher):
    launcher.start("time.sleep(600)", "--data", str(launcher.directory / "data"))
    record = launcher.record
    assert json.loads(record["parameters"]) == {"registration": ADDRESS}
    process = psutil.Process(record["pid"])
    for text in (*process.cmdline(), *launcher.gramine.environment, *launcher.gramine.environment.values()):
        assert "40123" not in text


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_passed_through(launcher, status):
    assert launcher.start(f"sys.exit({status})").wait(30) == status
    assert all_ended(launcher)
    assert launcher.left == []


def test_a_crash_is_no_success(launcher):
    assert launcher.start("os.kill(os.getpid(), signal.SIGSEGV)").wait(30) not in (0, None)
    assert launcher.left == []


def test_what_gramine_says_reaches_whoever_reads_the_launchers_output(launcher):
    launcher.start("print('out', flush=True); print('err', file=sys.stderr)").wait(30)
    assert launcher.output.read_text().split() == ["out", "err"]


def test_processes_that_outlive_gramine_are_ended(launcher):
    process = launcher.start("sys.exit(3)")
    record = launcher.record
    assert process.wait(30) == 3
    assert not alive(record["grandchild"])


def test_descendants_that_lost_their_parents_are_ended_too(launcher):
    process = launcher.start(
        """
code = "if os.fork() == 0:\\n    os.setsid()\\n    print(os.getpid(), flush=True)\\n    time.sleep(600)"
code = "import os, time\\n" + code
middle = subprocess.Popen([sys.executable, "-c", code], stdout=open(PLACE + "/orphan", "w"))
middle.wait()
while not open(PLACE + "/orphan").read().endswith("\\n"):
    time.sleep(0.01)
"""
    )
    assert process.wait(30) == 0
    orphan = int((launcher.gramine.place / "orphan").read_text())
    assert wait_until(lambda: not alive(orphan), seconds=5)


def test_sigterm_ends_everything_and_leaves_nothing(launcher):
    process = launcher.start("time.sleep(600)")
    assert alive(launcher.record["pid"])
    started = time.monotonic()
    process.terminate()
    assert process.wait(30) != 0
    assert time.monotonic() - started < 5
    assert all_ended(launcher)
    assert launcher.left == []


def test_sigterm_ends_a_gramine_that_does_not_listen(launcher):
    process = launcher.start(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); open(PLACE + '/deaf', 'w'); time.sleep(600)"
    )
    assert wait_until((launcher.gramine.place / "deaf").exists)
    process.terminate()
    process.wait(30)
    assert all_ended(launcher)


def test_a_host_that_interrupts_the_launcher_ends_nothing(launcher):
    process = launcher.start("time.sleep(600)")
    pid = launcher.record["pid"]
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    assert alive(pid)


def test_a_launcher_that_is_killed_takes_gramine_with_it(launcher):
    process = launcher.start("time.sleep(600)")
    pid = launcher.record["pid"]
    assert alive(pid)
    process.kill()
    process.wait(30)
    assert wait_until(lambda: not alive(pid), seconds=5)


def test_what_a_killed_launcher_left_is_removed_by_the_next(launcher):
    process = launcher.start("time.sleep(600)")
    left = Path(launcher.record["cwd"])
    process.kill()
    process.wait(30)
    os.kill(launcher.record["grandchild"], signal.SIGKILL)
    assert launcher.left == [left]
    (launcher.gramine.place / "record.json").unlink()
    assert launcher.start("sys.exit(0)").wait(30) == 0
    assert launcher.left == []


def test_a_gramine_that_cannot_be_started_leaves_nothing(launcher):
    (launcher.gramine.programs / "gramine-direct").unlink()
    for name in launcher.gramine.programs.iterdir():
        name.unlink()
    launcher.gramine.programs.rmdir()
    process = launcher.start("")
    process.wait(30)
    if process.returncode == 0:
        pytest.fail("a Gramine of the system was run")
    assert launcher.left == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--tee", "gramine-direct", "--image", "x"],
        ["--tee", "simulated", "--image", "x", "--registration=tcp://x:1"],
        ["--tee", "gramine-direct", "--registration=tcp://x:1"],
        ["--tee", "gramine-direct", "--image", "x", "--registration=tcp://x:1", "extra"],
    ],
    ids=["nothing", "no address", "another tee", "no image", "more"],
)
def test_arguments_that_are_not_a_kernelspecs_are_refused(arguments, tmp_path, monkeypatch):
    from sealbook.jupyter import gramine_launcher

    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        gramine_launcher.main(arguments)
    assert end.value.code == 2
    assert not (tmp_path / "launches").exists()
