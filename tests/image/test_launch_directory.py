"""The directory of one start: what is in it, for whom, and that none is left or taken from the living."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealbook.image.launch_directory import launch_directory
from sealbook.image.owned_directory import owned_directory


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path / "sealbook" / "launches"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    for name in ("image", "notebooks", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_text(name)
    return {
        "image": tmp_path / "image",
        "work": tmp_path / "notebooks",
        "data": tmp_path / "data",
        "registration": "tcp://127.0.0.1:4711",
    }


@pytest.fixture
def place(parent: Path, options: dict[str, Any]) -> Iterator[Path]:
    with launch_directory(parent, **options) as place:
        yield place


def test_it_holds_what_the_manifest_names_and_nothing_else(place, options):
    assert {path.name for path in place.iterdir()} == {"image", "work", "data", "scratch", "launch", "lock"}
    for name, target in (("image", "image"), ("work", "work"), ("data", "data")):
        assert (place / name).readlink() == options[target]
    assert not (place / "scratch").is_symlink()
    assert list((place / "scratch").iterdir()) == []
    assert [path.name for path in (place / "launch").iterdir()] == ["registration"]


def test_it_is_for_its_user_only(place, parent):
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700


def test_it_is_for_its_user_only_whatever_the_umask(parent, options):
    before = os.umask(0)
    try:
        with launch_directory(parent, **options) as place:
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_the_parameters_are_an_address_and_no_more(place):
    assert json.loads((place / "launch/registration").read_bytes()) == {
        "registration": "tcp://127.0.0.1:4711"
    }


def test_the_kernel_reads_what_is_written_here(place):
    from sealbook.jupyter.gramine_kernel import read_parameters

    assert read_parameters(place / "launch/registration") == "tcp://127.0.0.1:4711"


def test_without_a_data_directory_there_is_an_empty_one(parent, options):
    with launch_directory(parent, **options | {"data": None}) as place:
        assert not (place / "data").is_symlink()
        assert list((place / "data").iterdir()) == []


def test_relative_places_are_links_that_lead_there(parent, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = {name: Path(options[name].name) for name in ("image", "work", "data")}
    with launch_directory(parent, **options | relative) as place:
        assert (place / "image/kept").read_text() == "image"
        assert (place / "work/kept").read_text() == "notebooks"
        assert (place / "data/kept").read_text() == "data"


def test_each_start_has_one_of_its_own(parent, options):
    with launch_directory(parent, **options) as first, launch_directory(parent, **options) as second:
        assert first != second
        assert (first / "image").exists()
        assert (second / "image").exists()


def test_afterwards_it_is_gone_and_what_its_links_led_to_is_not(parent, options):
    with launch_directory(parent, **options) as place:
        (place / "scratch/file").write_text("encrypted")
        (place / "scratch/deep/er").mkdir(parents=True)
        (place / "work/result").write_text("made by a cell")
    assert list(parent.iterdir()) == []
    for name in ("image", "work", "data"):
        assert (options[name] / "kept").exists()
    assert (options["work"] / "result").read_text() == "made by a cell"


def test_it_is_removed_also_if_the_start_failed(parent, options):
    def start() -> None:
        with launch_directory(parent, **options):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        start()
    assert list(parent.iterdir()) == []


def test_it_is_removed_if_it_could_not_be_filled(parent, options):
    with pytest.raises(TypeError), launch_directory(parent, **options | {"registration": 1.5}):
        pass
    assert list(parent.iterdir()) == []


_LAUNCHER = """
import subprocess, sys, time
from pathlib import Path
from sealbook.image.launch_directory import launch_directory
parent, work = map(Path, sys.argv[1:])
options = {"image": work, "work": work, "data": work, "registration": "tcp://x:1"}
with launch_directory(parent, **options) as place:
    (place / "scratch/left").write_text("encrypted")
    # Outlives a launcher that is killed, and has whatever it can inherit.
    child = subprocess.Popen(["sleep", "600"], close_fds=False, stdout=subprocess.DEVNULL)
    print(place, child.pid, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def launcher(parent: Path, work: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, str(parent), str(work)], stdout=subprocess.PIPE, text=True
    ) as process:
        place, child = process.stdout.readline().rsplit(maxsplit=1)
        try:
            yield process, Path(place)
        finally:
            process.kill()
            os.kill(int(child), signal.SIGKILL)


def test_what_a_killed_launcher_left_is_removed_by_the_next_and_nothing_behind_its_links(parent, options):
    with launcher(parent, options["work"]) as (process, left):
        process.kill()
        process.wait()
        assert (left / "scratch/left").exists()
        with launch_directory(parent, **options) as place:
            assert [path.name for path in parent.iterdir()] == [place.name]
    assert (options["work"] / "kept").read_text() == "notebooks"


def test_what_a_living_launcher_uses_is_left_alone(parent, options):
    with launcher(parent, options["work"]) as (process, used):
        for _ in range(3):
            with launch_directory(parent, **options):
                assert (used / "scratch/left").exists()
        assert (used / "launch/registration").exists()
        assert process.poll() is None


def test_what_is_just_being_made_is_not_taken_for_what_was_left(parent, options, monkeypatch):
    """Between making a directory and locking it, another launcher looks."""
    real, others = fcntl.flock, []

    def another() -> None:
        with launch_directory(parent, **options):
            pass

    def flock(descriptor: int, operation: int) -> None:
        if not others and stat.S_ISREG(os.fstat(descriptor).st_mode):
            others.append(threading.Thread(target=another))
            others[0].start()
            others[0].join(0.5)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with launch_directory(parent, **options) as place:
        others[0].join(10)
        assert (place / "launch/registration").exists()
    assert list(parent.iterdir()) == []


def left_behind(parent: Path, name: str) -> Path:
    """Make what a killed process leaves, with the lock that its like has."""
    parent.mkdir(parents=True, exist_ok=True)
    with owned_directory(parent, "launch-") as place:
        shutil.copytree(place, parent / name)
    return parent / name


@pytest.mark.parametrize("content", [b"", b"mine", b"Made by sealbook", None], ids=repr)
def test_a_directory_with_somebody_elses_lock_stays(parent, options, content):
    place = left_behind(parent, "launch-mine")
    (place / "lock").write_bytes((place / "lock").read_bytes() + b"more" if content is None else content)
    with launch_directory(parent, **options):
        pass
    assert (place / "lock").exists()


def test_a_directory_behind_a_link_stays(parent, options, tmp_path):
    left_behind(parent, "launch-mine").rename(tmp_path / "mine")
    (parent / "launch-mine").symlink_to(tmp_path / "mine")
    with launch_directory(parent, **options):
        pass
    assert (tmp_path / "mine/lock").exists()
    assert (parent / "launch-mine").is_symlink()


def test_a_lock_behind_a_link_is_nobodys(parent, options, tmp_path):
    place = left_behind(parent, "launch-mine")
    (place / "lock").rename(tmp_path / "lock")
    (place / "lock").symlink_to(tmp_path / "lock")
    with launch_directory(parent, **options):
        pass
    assert place.exists()


def test_what_a_prefix_has_of_a_pattern_is_no_pattern(parent):
    other = left_behind(parent, ".a-left")
    with owned_directory(parent, ".[ab]-"):
        assert other.exists()
    left = left_behind(parent, ".[ab]-left")
    with owned_directory(parent, ".[ab]-"):
        assert not left.exists()


def test_what_is_nowhere_else_is_kept_by_its_maker_and_by_the_next(parent):
    def keep(place: Path) -> bool:
        return (place / "old").exists()

    parent.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), owned_directory(parent, "build-", keep=keep) as place:
        (place / "old").mkdir()
        raise KeyboardInterrupt
    assert (place / "old").exists()
    with owned_directory(parent, "build-", keep=keep):
        assert (place / "old").exists()
    with owned_directory(parent, "build-"):
        assert not place.exists()


def test_what_is_no_launch_directory_stays(parent, options):
    parent.mkdir(parents=True)
    (parent / "mine").mkdir()
    (parent / "launch-of-mine.txt").write_text("mine")
    (parent / "launch-without-a-lock").mkdir()
    with launch_directory(parent, **options):
        pass
    assert {path.name for path in parent.iterdir()} >= {"mine", "launch-of-mine.txt"}
