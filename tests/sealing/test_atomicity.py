"""A file under its final name is complete, or it is the one that was there before."""

from __future__ import annotations

import gc
import os
import resource
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
    SealingKey,
    UnsealError,
    open_sealed,
    read_bytes,
    seal_file,
    unseal_file,
    write_bytes,
)
from sealbook.sealing.header import HEADER
from sealbook.sealing.segments import SEGMENT

KEYS = InMemoryKeys(SealingKey("k", 1, b"k" * 32))


@pytest.fixture
def target(tmp_path):
    write_bytes(tmp_path / "s", b"old", key="k", keys=KEYS)
    return tmp_path / "s"


def is_old(target):
    return read_bytes(target, keys=KEYS) == b"old" and os.listdir(target.parent) == [target.name]


def test_nothing_has_the_name_before_the_file_is_closed(tmp_path):
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS) as file:
        file.write(bytes(2 * SEGMENT))
        file.flush()
        assert not (tmp_path / "s").exists()
    assert read_bytes(tmp_path / "s", keys=KEYS) == bytes(2 * SEGMENT)


def test_an_exception_in_the_block_leaves_the_old_file(target):
    with pytest.raises(ZeroDivisionError), open_sealed(target, "wb", key="k", keys=KEYS) as file:
        file.write(bytes(2 * SEGMENT))
        raise ZeroDivisionError
    assert file.closed
    file.close()
    assert is_old(target)


def test_a_writer_that_nobody_closes_leaves_the_old_file(target):
    file = open_sealed(target, "wb", key="k", keys=KEYS)
    file.write(bytes(2 * SEGMENT))
    del file
    gc.collect()
    assert is_old(target)


def test_a_writer_of_a_process_that_ends_leaves_the_old_file(target):
    code = """
    import sys
    from sealbook.sealing import *
    file = open_sealed(sys.argv[1], "wb", key="k", keys=InMemoryKeys(SealingKey("k", 1, b"k" * 32)))
    file.write(b"half")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), target], check=True, capture_output=True, timeout=60
    )
    assert done.stderr == b""
    assert is_old(target)


def test_discarding_leaves_the_old_file(target):
    file = open_sealed(target, "wb", key="k", keys=KEYS)
    file.write(b"new")
    file.discard()
    file.discard()
    file.close()
    with pytest.raises(ValueError):
        file.write(b"more")
    assert file.info is None
    assert is_old(target)


def test_closing_twice_is_closing_once(target):
    with open_sealed(target, "wb", key="k", keys=KEYS) as file:
        file.write(b"new")
        file.close()
    file.close()
    file.discard()
    assert read_bytes(target, keys=KEYS) == b"new"
    with pytest.raises(ValueError):
        file.write(b"more")


def test_a_full_disk_leaves_the_old_file_and_a_sentence(target, tmp_path):
    """The limit on a file's size stands for the full disk."""
    plain = tmp_path.parent / f"{tmp_path.name}-plain"
    plain.write_bytes(os.urandom(3 * SEGMENT))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT, before[1]))
    try:
        with pytest.raises(InputError, match="File too large"):
            seal_file(plain, target, key="k", keys=KEYS)
        with (
            pytest.raises(InputError, match="File too large"),
            open_sealed(target, "wb", key="k", keys=KEYS) as file,
        ):
            file.write(plain.read_bytes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        plain.unlink()
    assert is_old(target)


def test_a_failure_at_closing_leaves_the_old_file(target, monkeypatch):
    file = open_sealed(target, "wb", key="k", keys=KEYS)
    file.write(b"new")

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(InputError, match="Input/output error"):
            file.close()
    assert is_old(target)


def test_an_interrupt_of_a_helper_thread_or_the_main_one_leaves_the_old_file(target, tmp_path, monkeypatch):
    from sealbook.sealing.segments import SegmentCipher

    plain = tmp_path.parent / f"{tmp_path.name}-plain"
    plain.write_bytes(bytes(20 * SEGMENT))
    real = SegmentCipher.encrypt_into

    def interrupted(self, index, *rest):
        if index == 13:
            raise KeyboardInterrupt
        real(self, index, *rest)

    monkeypatch.setattr(SegmentCipher, "encrypt_into", interrupted)
    for threads in (1, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            seal_file(plain, target, key="k", keys=KEYS, threads=threads)
        assert is_old(target)
    plain.unlink()


def test_after_a_failure_the_other_threads_stop(target, tmp_path, monkeypatch):
    from sealbook.sealing.segments import SegmentCipher

    plain = tmp_path.parent / f"{tmp_path.name}-plain"
    plain.write_bytes(bytes(64 * SEGMENT))
    encrypt_into, failed, done = SegmentCipher.encrypt_into, threading.Event(), []

    def failing(self, index, *rest):
        if index == 0:
            failed.set()
            raise ZeroDivisionError
        failed.wait()
        time.sleep(0.01)
        done.append(index)
        encrypt_into(self, index, *rest)

    monkeypatch.setattr(SegmentCipher, "encrypt_into", failing)
    with pytest.raises(ZeroDivisionError):
        seal_file(plain, target, key="k", keys=KEYS, threads=2)
    assert len(done) <= 16
    assert is_old(target)
    plain.unlink()


def test_an_interrupt_while_waiting_for_a_helper_waits_for_it_nevertheless(target, tmp_path, monkeypatch):
    """A helper that went on would write to descriptors that are closed, or by then another file's."""
    from sealbook.sealing.segments import SegmentCipher

    plain = tmp_path.parent / f"{tmp_path.name}-plain"
    plain.write_bytes(bytes(4 * SEGMENT))
    encrypt_into, join = SegmentCipher.encrypt_into, threading.Thread.join
    ended, interrupted, begun = [], [], threading.Event()

    def slow(self, *rest):
        if threading.current_thread() is threading.main_thread():
            begun.wait()
        else:
            begun.set()
            time.sleep(0.3)
            ended.append(True)
        encrypt_into(self, *rest)

    def interrupting(self, *rest):
        if not interrupted:
            interrupted.append(len(ended))
            raise KeyboardInterrupt
        join(self, *rest)

    monkeypatch.setattr(SegmentCipher, "encrypt_into", slow)
    monkeypatch.setattr(threading.Thread, "join", interrupting)
    with pytest.raises(KeyboardInterrupt):
        seal_file(plain, target, key="k", keys=KEYS, threads=2)
    seen = len(ended)
    assert seen > interrupted[0]
    time.sleep(0.4)
    assert len(ended) == seen
    assert is_old(target)
    plain.unlink()


@pytest.mark.parametrize("segment", [0, 7, 19])
@pytest.mark.parametrize("threads", [1, 3])
def test_unsealing_a_damaged_file_leaves_the_old_target(segment, threads, tmp_path):
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS) as file:
        file.write(bytes(20 * SEGMENT - 1000))
    with (tmp_path / "s").open("r+b") as file:
        file.seek(HEADER + segment * SEGMENT + 100)
        file.write(b"\x55")
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(UnsealError):
        unseal_file(tmp_path / "s", tmp_path / "out", keys=KEYS, threads=threads)
    assert (tmp_path / "out").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["out", "s"]


CHILD = textwrap.dedent("""
    import os, sys
    from sealbook.sealing import *
    from sealbook.sealing import blockio
    blockio.DIRECT_FROM = int(sys.argv[4])
    keys = InMemoryKeys(SealingKey("k", 1, b"k" * 32))
    print(flush=True)
    while True:
        if sys.argv[1] == "seal":
            seal_file(sys.argv[2], sys.argv[3], key="k", keys=keys)
        elif sys.argv[1] == "unseal":
            unseal_file(sys.argv[2], sys.argv[3], keys=keys)
        else:
            with open_sealed(sys.argv[3], "wb", key="k", keys=keys) as file, open(sys.argv[2], "rb") as plain:
                while piece := plain.read(1 << 20):
                    file.write(piece)
""")


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("way", ["seal", "unseal", "write"])
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(way, direct, tmp_path):
    plain, sealed, out = tmp_path / "plain", tmp_path / "sealed", tmp_path / "out" / "file"
    out.parent.mkdir()
    new = os.urandom(5 * SEGMENT)
    plain.write_bytes(new)
    seal_file(plain, sealed, key="k", keys=KEYS)
    seen = []
    for attempt in range(6):
        if way == "unseal":
            out.write_bytes(b"old")
        else:
            write_bytes(out, b"old", key="k", keys=KEYS)
        source = sealed if way == "unseal" else plain
        command = [sys.executable, "-c", CHILD, way, source, out, "0" if direct else "999999999"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.004 * attempt)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        content = out.read_bytes() if way == "unseal" else read_bytes(out, keys=KEYS)
        assert content in (b"old", new)
        seen.append(content == new)
        # Between two names for an instant: what lies there then is complete, and hidden.
        assert all(name == "file" or name.startswith(".") for name in os.listdir(out.parent))
    assert not all(seen)
