from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealbook.broker import AuditError, AuditLog
from sealbook.broker import audit as audit_module
from sealbook.errors import InputError

JSON_FACTS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("seq", "time", "event", "previous", "hash")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(5):
        log.append("release", decision="released", key=f"k{number}")
    return log


def test_an_empty_log_is_whole(tmp_path):
    verdict = AuditLog(tmp_path / "audit.jsonl").verify()
    assert (verdict.ok, verdict.entries, verdict.head) == (True, 0, "0" * 64)


def test_entries_are_numbered_dated_chained_and_private(log):
    entries = list(log.entries())
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry["previous"] for entry in entries[1:]] == [entry["hash"] for entry in entries[:-1]]
    assert all(datetime.fromisoformat(entry["time"]).tzinfo for entry in entries)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    verdict = log.verify()
    assert (verdict.ok, verdict.entries, verdict.head) == (True, 5, entries[-1]["hash"])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON_FACTS, min_size=1, max_size=4))
def test_whatever_facts_are_recorded_the_log_is_whole_and_gives_them_back(tmp_path, several):
    path = tmp_path / f"{time.monotonic_ns()}.jsonl"
    for facts in several:
        AuditLog(path).append("event", **facts)
    assert AuditLog(path).verify().ok
    assert [
        {name: entry[name] for name in facts}
        for entry, facts in zip(AuditLog(path).entries(), several, strict=True)
    ] == several


@pytest.mark.parametrize("secret", [b"bytes", 1.5, object()])
def test_a_fact_that_is_no_json_value_is_not_recorded(log, secret):
    with pytest.raises(TypeError):
        log.append("release", key=secret)
    assert log.verify().entries == 5


@pytest.mark.parametrize("name", ["seq", "time", "previous", "hash"])
def test_a_caller_cannot_choose_what_makes_the_chain(log, name):
    with pytest.raises(TypeError, match="cannot be chosen"):
        log.append("release", **{name: "x"})


def test_every_single_bit_flip_is_noticed(log):
    whole = log.path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            log.path.write_bytes(changed)
            assert not log.verify().ok, (position, bit)
    log.path.write_bytes(whole)
    assert log.verify().ok


def _rewrite(log: AuditLog, lines: list[bytes]) -> None:
    log.path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[:2] + lines[3:], "Line 3 does not follow"),
        (lambda lines: lines[1:], "Line 1 does not follow"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "Line 3 does not follow"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "Line 1 does not follow"),
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [], "cut off"),
        (lambda lines: [*lines, b"{}\n"], "Line 6"),
        (lambda lines: [*lines, b"\n"], "Line 6"),
        (lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")], "Line 5"),
        (lambda lines: [lines[0].replace(b'"key"', b' "key"'), *lines[1:]], "Line 1"),
    ],
    ids=[
        "deleted",
        "first deleted",
        "doubled",
        "moved",
        "last cut",
        "emptied",
        "added",
        "blank",
        "newline",
        "spaced",
    ],
)
def test_lines_removed_moved_or_added_are_noticed(log, change, problem):
    _rewrite(log, change(log.path.read_bytes().splitlines(keepends=True)))
    verdict = log.verify()
    assert not verdict.ok
    assert problem in verdict.problem


def _rehash(entry: dict) -> bytes:
    entry["hash"] = audit_module._hash(entry)
    return audit_module.canonical_json(entry) + b"\n"


def test_an_entry_changed_and_hashed_anew_breaks_the_next(log):
    lines = log.path.read_bytes().splitlines(keepends=True)
    lines[2] = _rehash(json.loads(lines[2]) | {"decision": "refused"})
    _rewrite(log, lines)
    assert "Line 4 does not follow" in log.verify().problem


def test_an_entry_changed_but_not_its_hash_is_noticed(log):
    lines = log.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"released", b"refused!")
    _rewrite(log, lines)
    assert "Line 5 was changed" in log.verify().problem


def test_an_entry_forged_at_the_end_is_noticed(log):
    last = list(log.entries())[-1]
    forged = _rehash({"seq": 6, "time": last["time"], "event": "x", "previous": last["hash"]})
    with open(log.path, "ab") as file:
        file.write(forged)
    assert "added" in log.verify().problem


def test_a_missing_or_damaged_head_file_is_noticed(log):
    head = log.path.with_name("audit.jsonl.head")
    content = head.read_bytes()
    head.unlink()
    assert "missing" in log.verify().problem
    head.write_bytes(content[:-10])
    assert "damaged" in log.verify().problem


def test_a_head_noted_elsewhere_shows_that_both_files_were_replaced(log, tmp_path):
    noted = log.verify().head
    log.append("later")
    assert log.verify(expected_head=noted).ok
    log.path.unlink()
    log.path.with_name("audit.jsonl.head").unlink()
    for number in range(7):
        log.append("release", decision="refused", key=f"k{number}")
    assert log.verify().ok
    assert "does not contain the given head" in log.verify(expected_head=noted).problem


def test_a_tampered_log_takes_no_further_entries(log):
    lines = log.path.read_bytes().splitlines(keepends=True)
    for content in (lines[:-1], [], [*lines, lines[-1]], [*lines[:-1], lines[-1].replace(b"k4", b"kX")]):
        _rewrite(log, content)
        with pytest.raises(AuditError, match="nothing was released"):
            log.append("release")
    _rewrite(log, lines)
    log.append("release")
    assert log.verify().ok


def test_a_log_without_its_head_file_takes_no_further_entries(log):
    log.path.with_name("audit.jsonl.head").unlink()
    with pytest.raises(AuditError):
        log.append("release")


def test_a_log_that_cannot_be_written_is_an_error_in_one_sentence(tmp_path):
    with pytest.raises(AuditError, match="could not be written"):
        AuditLog(tmp_path / "missing" / "audit.jsonl").append("release")


def test_a_log_behind_a_symbolic_link_is_not_written(tmp_path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError):
        AuditLog(tmp_path / "audit.jsonl").append("release")
    assert not (tmp_path / "elsewhere").exists()


def test_an_entry_beyond_the_bound_is_refused_and_nothing_is_written(log):
    with pytest.raises(AuditError):
        log.append("release", key="x" * audit_module.MAX_ENTRY)
    assert log.verify().entries == 5
    log.append("release")
    assert log.verify().ok


@pytest.mark.parametrize("written", [0, 1, 40, -1], ids=["nothing", "a byte", "a piece", "all"])
def test_a_power_cut_while_appending_leaves_a_log_that_verifies_and_goes_on(tmp_path, monkeypatch, written):
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append("first")
    real = audit_module.files.write_bytes
    calls = []

    def cut(path, data, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt  # dies between the entry and the head file's second writing
        real(path, data, **kwargs)

    monkeypatch.setattr(audit_module.files, "write_bytes", cut)
    size = log.path.stat().st_size
    with pytest.raises(KeyboardInterrupt):
        log.append("second")
    monkeypatch.undo()
    if written >= 0:
        os.truncate(log.path, size + written)
    assert log.verify().ok
    assert log.verify().entries == (2 if written < 0 else 1)
    log.append("third")
    assert log.verify().ok
    assert [entry["event"] for entry in log.entries()] == [
        "first",
        *(["second"] if written < 0 else []),
        "third",
    ]


def _append_forever(path: Path) -> None:
    log = AuditLog(path)
    while True:
        log.append("release", key="k" * 200)


def test_a_killed_writer_leaves_a_log_that_verifies_and_goes_on(tmp_path):
    path = tmp_path / "audit.jsonl"
    AuditLog(path).append("first")
    context = multiprocessing.get_context("fork")
    for round_ in range(8):
        worker = context.Process(target=_append_forever, args=(path,))
        worker.start()
        time.sleep(0.02 + 0.013 * round_)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert AuditLog(path).verify().ok
        AuditLog(path).append("after")
        assert AuditLog(path).verify().ok


def _append_some(path: Path, who: int) -> None:
    for number in range(10):
        AuditLog(path).append("release", who=who, number=number)


def test_processes_and_threads_append_at_the_same_time(tmp_path):
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_some, args=(path, who)) for who in range(3)]
    workers += [threading.Thread(target=_append_some, args=(path, who)) for who in range(3, 6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    verdict = AuditLog(path).verify()
    assert (verdict.ok, verdict.entries) == (True, 60)


def test_a_line_that_is_no_entry_is_an_error_that_names_it(log):
    with open(log.path, "ab") as file:
        file.write(b"[]\n")
    with pytest.raises(InputError, match="Line 6"):
        list(log.entries())


def test_the_time_of_the_last_entry_is_known(tmp_path):
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    log = AuditLog(tmp_path / "audit.jsonl", clock=lambda: moment)
    assert log.last_time() is None
    log.append("x")
    assert log.last_time() == moment
