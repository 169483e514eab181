"""Rotation rewrites the header only, and whatever kills it, the file opens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sealbook.errors import InputError
from sealbook.sealing import (
    InMemoryKeys,
    KeyUnavailableError,
    NotSealedError,
    UnsealError,
    inspect,
    read_bytes,
    rekey,
    rotation,
    write_bytes,
)
from sealbook.sealing.header import HEADER, SLOT

PLAIN = b"kept through every rotation" * 1000


@pytest.fixture
def sealed(tmp_path, keys):
    write_bytes(tmp_path / "s", PLAIN, key="team/data", keys=keys, context={"study": "A"})
    return tmp_path / "s"


def test_after_a_rotation_the_new_key_opens_the_file_and_the_old_one_does_not(sealed, keys):
    old = InMemoryKeys(keys.current("team/data"))
    about = rekey(sealed, keys=keys, to="other")
    assert about.keys == inspect(sealed).keys == (("other", 1),)
    assert about.sequence == 1
    assert read_bytes(sealed, keys=InMemoryKeys(keys.current("other")), context={"study": "A"}) == PLAIN
    with pytest.raises(KeyUnavailableError):
        read_bytes(sealed, keys=old)


def test_rotation_to_the_next_version_of_the_same_key(sealed, keys):
    keys.create("team/data")
    assert rekey(sealed, keys=keys, to="team/data").keys == (("team/data", 2),)
    assert read_bytes(sealed, keys=keys) == PLAIN


def test_rotation_writes_the_header_only(sealed, keys, monkeypatch):
    before, written = sealed.read_bytes(), []
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: written.append((at, len(data))) or real(fd, data, at)
    )
    rekey(sealed, keys=keys, to="other")
    assert written == [(SLOT, SLOT), (0, SLOT)]
    after = sealed.read_bytes()
    assert after[HEADER:] == before[HEADER:]
    assert after[:SLOT] == after[SLOT:HEADER] != before[:SLOT]


def test_each_slot_is_on_the_disk_before_the_next_is_written(sealed, keys, monkeypatch):
    calls = []
    write, sync = os.pwrite, os.fsync
    monkeypatch.setattr(os, "pwrite", lambda *a: calls.append("write") or write(*a))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("sync") or sync(fd))
    rekey(sealed, keys=keys, to="other")
    assert calls == ["write", "sync", "write", "sync"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("second", range(1, 7))
@pytest.mark.parametrize("first", range(1, 5))
def test_two_rotations_cut_short_anywhere_leave_a_file_that_opens(first, second, sealed, keys, monkeypatch):
    """Kill the first rotation before its n-th write or sync, the next before its m-th."""
    keys.create("third")
    write, sync = os.pwrite, os.fsync
    left = 0

    def dying(real):
        def call(*arguments):
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return real(*arguments)

        return call

    for left, to in ((first, "other"), (second, "third")):  # noqa: B007 - counted down by the calls
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "pwrite", dying(write))
            patch.setattr(os, "fsync", dying(sync))
            rekey(sealed, keys=keys, to=to)
            raise Killed
        assert read_bytes(sealed, keys=keys) == PLAIN
    rekey(sealed, keys=keys, to="other")
    assert read_bytes(sealed, keys=InMemoryKeys(keys.current("other"))) == PLAIN
    raw = sealed.read_bytes()
    assert raw[:SLOT] == raw[SLOT:HEADER]


@pytest.mark.parametrize("torn", [0, 1])
@pytest.mark.parametrize("at", [0, 5, 700, SLOT - 1])
def test_a_slot_that_a_power_cut_tore_is_repaired(torn, at, sealed, keys):
    rekey(sealed, keys=keys, to="other")
    with sealed.open("r+b") as file:
        file.seek(torn * SLOT + at)
        file.write(b"\xff")
    with pytest.raises(UnsealError, match="sealbook rekey"):
        read_bytes(sealed, keys=keys)
    rekey(sealed, keys=keys, to="team/data")
    assert read_bytes(sealed, keys=InMemoryKeys(keys.current("team/data"))) == PLAIN


def test_two_torn_slots_are_not_repaired_and_not_touched(sealed, keys):
    with sealed.open("r+b") as file:
        for slot in (0, SLOT):
            file.seek(slot + 100)
            file.write(b"\xff")
    before = sealed.read_bytes()
    with pytest.raises(UnsealError):
        rekey(sealed, keys=keys, to="other")
    assert sealed.read_bytes() == before


def test_slots_of_two_files_are_not_repaired_into_one(sealed, keys, make):
    foreign = make()
    before = sealed.read_bytes()
    sealed.write_bytes(before[:SLOT] + foreign[SLOT:HEADER] + before[HEADER:])
    mixed = sealed.read_bytes()
    with pytest.raises(UnsealError):
        rekey(sealed, keys=keys, to="other")
    assert sealed.read_bytes() == mixed


def test_a_rotation_without_one_of_the_keys_changes_nothing(sealed, keys):
    before = sealed.read_bytes()
    with pytest.raises(KeyUnavailableError):
        rekey(sealed, keys=keys, to="absent")
    with pytest.raises(KeyUnavailableError):
        rekey(sealed, keys=InMemoryKeys(keys.current("other")), to="other")
    with pytest.raises(InputError, match="not a key name"):
        rekey(sealed, keys=keys, to="No Name")
    assert sealed.read_bytes() == before


def test_only_a_sealed_file_is_rotated(tmp_path, keys):
    (tmp_path / "f").write_bytes(b"x" * 9000)
    with pytest.raises(NotSealedError):
        rekey(tmp_path / "f", keys=keys, to="other")
    with pytest.raises(InputError, match="no file"):
        rekey(tmp_path / "none", keys=keys, to="other")
    assert (tmp_path / "f").read_bytes() == b"x" * 9000


def test_a_file_is_read_while_it_is_rotated(sealed, keys):
    """Readers take no lock: at any moment what they see is one of the states that open."""
    stop = threading.Event()
    failures = []

    def rotate():
        try:
            while not stop.is_set():
                for to in ("other", "team/data"):
                    rekey(sealed, keys=keys, to=to)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=rotate) for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert read_bytes(sealed, keys=keys) == PLAIN
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_header_that_changes_while_it_is_read_is_read_again(sealed, keys, monkeypatch):
    """The race above, at its worst, every time: a reader that saw half of a slot."""
    from sealbook.sealing import access

    real, torn = access.LocalFile.read_at, []

    def read_at(self, offset, length):
        data = real(self, offset, length)
        if offset == 0 and not torn:
            torn.append(True)
            return data[:200] + bytes(100) + data[300:]
        return data

    monkeypatch.setattr(access.LocalFile, "read_at", read_at)
    assert read_bytes(sealed, keys=keys) == PLAIN
    assert torn


def test_rotations_wait_for_each_other(sealed, keys, monkeypatch):
    """Two threads, one slowed down between its two writes."""
    real = rotation._write_slot
    order = []

    def slow(file, index, slot):
        order.append((threading.get_ident(), index))
        time.sleep(0.05)
        real(file, index, slot)

    monkeypatch.setattr(rotation, "_write_slot", slow)
    threads = [
        threading.Thread(target=rekey, args=(sealed,), kwargs={"keys": keys, "to": to})
        for to in ("other", "other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [index for _, index in order] == [1, 0, 1, 0]
    assert order[0][0] == order[1][0] != order[2][0] == order[3][0]
    assert inspect(sealed).sequence == 2


ROTATE = textwrap.dedent("""
    import sys
    from sealbook.sealing import InMemoryKeys, SealingKey, rekey
    keys = InMemoryKeys(SealingKey("a", 1, b"a" * 32), SealingKey("b", 1, b"b" * 32))
    print(flush=True)
    while True:
        rekey(sys.argv[1], keys=keys, to="a")
        rekey(sys.argv[1], keys=keys, to="b")
""")


def test_a_kill_while_rotating_leaves_a_file_that_opens(tmp_path):
    from sealbook.sealing import SealingKey

    keys = InMemoryKeys(SealingKey("a", 1, b"a" * 32), SealingKey("b", 1, b"b" * 32))
    write_bytes(tmp_path / "s", PLAIN, key="a", keys=keys)
    for attempt in range(8):
        child = subprocess.Popen([sys.executable, "-c", ROTATE, tmp_path / "s"], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.013 * (attempt + 1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert read_bytes(tmp_path / "s", keys=keys) == PLAIN
    assert inspect(tmp_path / "s").sequence > 0
