"""What the broker decided about one kernel, as it happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealbook.broker import AuditLog
from sealbook.broker.audit import AuditError
from sealbook.broker.trail import MAX_ENTRIES, MAX_TEXT, Trail


@pytest.fixture
def audit(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit.jsonl")


def events(trail: Trail, since: int = 0) -> list[str]:
    return [entry["event"] for entry in trail.since(since)]


def test_a_trail_has_the_entries_of_its_channel_and_of_the_sessions_on_it(audit):
    trail = Trail(audit, "mine")
    audit.append("attest", channel="mine", session="one")
    audit.append("release", session="one", key="k")
    audit.append("attest", channel="other", session="two")
    audit.append("release", session="two", key="k")
    audit.append("attest", channel="mine", decision="refused")
    audit.append("attest", channel="mine", session="three")
    audit.append("release", session="three", key="k")
    audit.append("owner", key="k")
    assert events(trail) == ["attest", "release", "attest", "attest", "release"]
    assert [entry.get("session") for entry in trail.since()] == ["one", "one", None, "three", "three"]


def test_a_trail_tells_what_is_new(audit):
    trail = Trail(audit, "mine")
    audit.append("attest", channel="mine", session="one")
    last = trail.since()[-1]["seq"]
    assert trail.since(last) == ()
    audit.append("release", session="one")
    assert events(trail, last) == ["release"]


def test_a_closed_trail_hears_no_more_and_keeps_what_it_has(audit):
    trail = Trail(audit, "mine")
    audit.append("attest", channel="mine", session="one")
    trail.close()
    trail.close()
    audit.append("release", session="one")
    assert events(trail) == ["attest"]
    assert audit.listeners == []


def test_a_trail_keeps_the_newest_entries_only(audit):
    trail = Trail(audit, "mine")
    for seq in range(MAX_ENTRIES + 5):
        trail._hear({"seq": seq, "event": "x", "channel": "mine"})
    assert len(trail.since(-1)) == MAX_ENTRIES
    assert trail.since(-1)[-1]["seq"] == MAX_ENTRIES + 4


def test_a_trail_keeps_no_long_text(audit):
    trail = Trail(audit, "mine")
    audit.append(
        "attest", channel="mine", session="one", facts={"path": "x" * 4000}, reasons=["y" * 400] * 99
    )
    (entry,) = trail.since()
    assert len(entry["facts"]["path"]) == MAX_TEXT
    assert {len(reason) for reason in entry["reasons"]} == {MAX_TEXT}
    assert len(entry["reasons"]) == 32
    assert len(next(audit.entries())["facts"]["path"]) == 4000, "the log has all of it"


def test_nobody_hears_of_an_entry_that_could_not_be_written(audit):
    trail = Trail(audit, "mine")
    audit.append("attest", channel="mine", session="one")
    audit.path.with_name(audit.path.name + ".head").unlink()
    with pytest.raises(AuditError):
        audit.append("release", session="one")
    assert events(trail) == ["attest"]
