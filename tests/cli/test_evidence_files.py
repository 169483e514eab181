"""`sealbook verify FILE` with an evidence file: offline, from the file alone."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import Policy, Verifier, policy_text, report_data
from sealbook.attestation.evidence_file import EvidenceFile, _digest
from sealbook.attestation.simulated import Forge, ReportSpec
from sealbook.encoding import canonical_json

BOUND: dict[str, Any] = {
    "role": "kernel",
    "audience": "jupyter-client",
    "nonce": bytes(32),
    "claims": {"kernel-curve-key": b"k" * 40},
}


def export(age: timedelta) -> Path:
    """Write an evidence file of a platform that this user does not have, and two policies for it."""
    now = datetime.now(UTC) - age
    forge = Forge.create(now)
    expected = report_data(**BOUND)
    quote = forge.quote(ReportSpec(mrenclave=b"\xaa" * 32, report_data=expected))
    text = policy_text(mrenclave=b"\xaa" * 32, root=forge.root, now=now)
    Path("mine.toml").write_text(text)
    Path("other.toml").write_text(policy_text(mrenclave=b"\xbb" * 32, root=forge.root, now=now))
    policy = Policy.parse(text)
    result = Verifier(policy).verify(quote, forge.collateral(), now=now, expected_report_data=expected)
    file = EvidenceFile(quote, forge.collateral(), policy, expected, result=result, **BOUND)
    Path("kernel.evidence.json").write_bytes(file.to_json())
    return Path("kernel.evidence.json")


@pytest.fixture
def exported(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An evidence file of an hour ago, and no network."""

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return export(timedelta(hours=1))


def edit(file: Path, **changes: Any) -> Path:
    content = json.loads(file.read_bytes()) | changes
    del content["digest"]
    changed = file.with_name("changed.json")
    changed.write_bytes(canonical_json(content | {"digest": _digest(content)}))
    return changed


def test_an_evidence_file_is_verified_offline_without_a_platform_of_ones_own(
    run: Any, exported: Path, home: Path
) -> None:
    outcome = run("verify", exported)
    assert "simulated" in outcome.out
    assert "Root: passed" in outcome.out
    # Only a verifier that has seen collateral before can say that this is not older.
    assert "TCB info: not reached in full" in outcome.out
    assert "not reached: " in outcome.out.split("TCB info", 1)[1]
    assert not home.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x01\xff" * 170, b"0400", b'{"a": "b"}'])
def test_what_is_no_evidence_is_called_that(run: Any, home: Path, content: bytes) -> None:
    Path("thing").write_bytes(content)
    outcome = run("verify", "thing", status=2)
    assert "thing is neither an evidence file nor a quote" in outcome.err


def test_the_beginning_of_an_evidence_file_is_called_incomplete(run: Any, exported: Path) -> None:
    whole = exported.read_bytes()
    for length in (3000, len(whole) - 1):
        exported.write_bytes(whole[:length])
        outcome = run("verify", exported, status=2)
        assert re.search("not the whole of one: export it again|use an intact copy", outcome.err)


def test_it_says_whose_policy_it_judged_by_and_under_which_root(run: Any, exported: Path) -> None:
    root = json.loads(exported.read_bytes())["result"]["root_fingerprint"]
    outcome = run("verify", exported)
    assert "whose author is whoever made the file" in outcome.out
    assert root in outcome.out
    document = run("verify", exported, "--json").json
    assert document["file"]["policy_from"] == "file"
    assert document["file"]["good"] is True
    assert document["root_fingerprint"] == root
    assert [link["name"] for link in document["chain"]][:5] == [
        "Quote",
        "Quoting enclave",
        "PCK certificate",
        "PCK CA",
        "Root",
    ]
    own = run("verify", exported, "--policy", "mine.toml")
    assert "whoever made the file" not in own.out
    assert run("verify", exported, "-p", "mine.toml", "--json").json["file"]["policy_from"] == "reader"


def test_a_policy_or_a_time_of_the_readers_can_refuse_it(run: Any, exported: Path) -> None:
    outcome = run("verify", exported, "-p", "other.toml", status=1)
    assert "is not one the policy admits" in outcome.out
    late = (datetime.now(UTC) + timedelta(days=90)).isoformat()
    assert run("verify", exported, "--at", late, "--json", status=1).json["label"] == "refused"


def test_a_policy_of_the_readers_judges_now_unless_he_asks_for_the_files_time(
    run: Any, exported: Path
) -> None:
    old = export(timedelta(days=90))
    # By itself it is what it was, and says by whose clock.
    assert "the time that the file states" in run("verify", old).out
    assert run("verify", old, "--json").json["file"]["time_from"] == "file"
    # Its collateral has expired since, and its maker's choice of a time does not hide that.
    outcome = run("verify", old, "-p", "mine.toml", status=1)
    assert "expired" in outcome.out
    assert "the time that the file states" not in outcome.out
    document = run("verify", old, "-p", "mine.toml", "--json", status=1).json
    assert document["label"] == "refused"
    assert document["file"]["time_from"] == "reader"
    asked = run("verify", old, "-p", "mine.toml", "--at", "file")
    assert "the time that the file states" in asked.out
    document = run("verify", old, "-p", "mine.toml", "--at", "file", "--json").json
    assert (document["label"], document["file"]["time_from"]) == ("simulated", "file")


def test_another_report_data_or_result_ends_with_status_1(run: Any, exported: Path) -> None:
    content = json.loads(exported.read_bytes())
    for changes, said in (
        ({"nonce": "11" * 32}, "do not give the report data"),
        ({"claims": {}}, "do not give the report data"),
        ({"result": content["result"] | {"isv_svn": 9}}, "not the one that its evidence"),
    ):
        outcome = run("verify", edit(exported, **changes), status=1)
        assert said in outcome.out
        assert run("verify", "changed.json", "--json", status=1).json["file"]["problems"]


def test_a_damaged_file_or_a_wrong_option_ends_with_status_2(run: Any, exported: Path) -> None:
    damaged = exported.with_name("damaged.json")
    damaged.write_bytes(exported.read_bytes().replace(b"jupyter-client", b"jupyter-cliemt"))
    assert "damaged or edited" in run("verify", damaged, status=2).err
    for option in ("--collateral", "--report-data"):
        assert "brings its own" in run("verify", exported, option, "kernel.evidence.json", status=2).err
    newer = exported.with_name("newer.json")
    newer.write_bytes(exported.read_bytes().replace(b"evidence/1", b"evidence/2"))
    assert "sealbook-evidence/1" in run("verify", newer, status=2).err


def test_a_result_that_no_verifier_writes_ends_with_status_2(run: Any, exported: Path) -> None:
    result = json.loads(exported.read_bytes())["result"]
    for change, said in (
        ({"verified_at": "0001-01-01T00:00:00+14:00"}, "date in UTC"),
        ({"verified_at": "9999-12-31T23:59:59-14:00"}, "date in UTC"),
        ({"verified_at": "9999-12-31T23:59:59+00:00"}, "2000 to 9998"),
        ({"collateral_expires_at": "0001-01-01T00:00:00+14:00"}, "date in UTC"),
        ({"isv_svn": True}, "isv_svn is of the wrong kind"),
    ):
        outcome = run("verify", edit(exported, result=result | change), status=2)
        assert said in outcome.err
        assert "inside sealbook" not in outcome.err
