"""One word about a kernel: the right one at every time, and never an old one for longer than it counts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealbook.attestation import Policy
from sealbook.attestation.policy_writer import write_policy
from sealbook.errors import InputError, RefusedError
from sealbook.jupyter.refused_starts import RefusedStarts
from sealbook.jupyter.trust import Trust, refused, trust_of


@pytest.fixture
def policy_file(brokered, tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(write_policy(brokered.policy))
    return path


def trust(brokered, policy_file: Path, now: datetime | None = None) -> Trust:
    return trust_of(brokered.endpoint, policy_file, now or datetime.now(UTC))


def test_what_was_verified_counts_until_the_session_the_collateral_or_the_policy_ends(brokered, policy_file):
    found = trust(brokered, policy_file)
    session = brokered.endpoint.session
    assert (found.state, found.stale) == ("simulated", None)
    assert found.fresh_until == min(
        session.expires_at, session.policy.expires, session.result.collateral_expires_at
    )
    assert trust(brokered, policy_file, found.fresh_until - timedelta(seconds=1)).stale is None
    late = trust(brokered, policy_file, found.fresh_until)
    assert late.state == "simulated"
    assert "lets one attestation count until" in late.stale.reason
    assert "Attest again" in late.stale.remedy


def test_collateral_that_expired_is_named_as_the_reason(brokered, policy_file):
    expires = brokered.endpoint.session.result.collateral_expires_at
    assert "was good until" in trust(brokered, policy_file, expires).stale.reason


def test_a_policy_that_expired_makes_it_stale(brokered, policy_file):
    session, now = brokered.endpoint.session, datetime.now(UTC)
    object.__setattr__(session, "policy", _expiring(brokered.policy, now + timedelta(minutes=1)))
    policy_file.write_text(write_policy(session.policy))
    found = trust(brokered, policy_file, now + timedelta(minutes=2))
    assert "expired" in found.stale.reason
    assert found.fresh_until == session.policy.expires


@pytest.mark.parametrize("text", ["", "nonsense [", None])
def test_a_policy_file_that_cannot_be_read_any_more_makes_it_stale(brokered, policy_file, text):
    if text is None:
        policy_file.unlink()
    else:
        policy_file.write_text(text)
    assert trust(brokered, policy_file).stale is not None


def test_a_policy_file_that_says_something_else_makes_it_stale(brokered, policy_file):
    policy_file.write_text(
        policy_file.read_text().replace("max_age_seconds = 2592000", "max_age_seconds = 2591999")
    )
    assert "was changed" in trust(brokered, policy_file).stale.reason
    policy_file.write_text("# only a comment more\n" + write_policy(brokered.policy))
    assert trust(brokered, policy_file).stale is None


def test_attesting_anew_gives_another_evidence(brokered, policy_file):
    before = trust(brokered, policy_file)
    brokered.remote.attest()
    after = trust(brokered, policy_file)
    assert before.evidence != after.evidence
    assert before.verified_at < after.verified_at


def test_a_refused_attempt_to_attest_anew_ends_as_refused_until_one_succeeds(brokered, policy_file):
    heard = []
    brokered.endpoint.on_attest = lambda: heard.append(brokered.endpoint.refusal)
    good = brokered.remote._evidence
    brokered.remote._evidence = lambda nonce: good(bytes(32))
    with pytest.raises(RefusedError):
        brokered.remote.attest()
    found = trust(brokered, policy_file)
    assert found.state == "refused"
    assert [refusal.check for refusal in found.refusals] == ["report-data"]
    brokered.remote._evidence = good
    brokered.remote.attest()
    assert trust(brokered, policy_file).state == "simulated"
    assert [str(each)[:12] for each in heard] == ["The evidence", "None"]


def test_an_attempt_that_could_not_be_judged_makes_what_was_found_stale(brokered, policy_file, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise RefusedError("The collateral service\ndid not answer: try again.")

    monkeypatch.setattr(brokered.broker, "attest", unreachable)
    with pytest.raises(RefusedError):
        brokered.remote.attest()
    found = trust(brokered, policy_file)
    assert found.state == "simulated"
    assert found.stale.reason.endswith("The collateral service did not answer: try again.")


def test_an_error_of_ours_while_judging_is_no_success_either(brokered, policy_file, monkeypatch):
    monkeypatch.setattr(brokered.broker, "attest", lambda *_, **__: 1 / 0)
    with pytest.raises(RefusedError):
        brokered.remote.attest()
    assert "could not be judged" in trust(brokered, policy_file).stale.reason


def test_a_kernel_whose_new_evidence_is_refused_gets_no_key_for_the_old_one(brokered):
    brokered.keyring.create("guarded", guard="kernel")
    brokered.remote.current("guarded")
    good = brokered.remote._evidence
    brokered.remote._evidence = lambda nonce: good(bytes(32))
    with pytest.raises(RefusedError):
        brokered.remote.attest()
    brokered.remote.forget()
    with pytest.raises(RefusedError, match="another challenge"):
        brokered.remote.current("guarded")
    brokered.remote._evidence = good
    assert brokered.remote.current("guarded").name == "guarded", "good evidence opens a session again"


def test_evidence_for_a_challenge_that_was_forgotten_is_refused(brokered):
    made = brokered.remote._evidence

    def late(nonce: bytes) -> bytes:
        brokered.endpoint.forget_challenge()
        return made(nonce)

    brokered.remote._evidence = late
    with pytest.raises(InputError, match="ask for one first"):
        brokered.remote.attest()


def test_what_is_said_is_json_and_one_line(brokered, policy_file):
    said = trust(brokered, policy_file).to_dict("id")
    assert set(said) == {
        "state", "summary", "stale", "kernel", "evidence", "verified_at", "fresh_until", "refusals",
    }  # fmt: skip
    assert refused(InputError("two\nlines")).summary == "two lines"


def test_the_last_refused_start_of_a_session_is_known_until_one_succeeds():
    starts = RefusedStarts()
    starts.note("a.ipynb", RefusedError("first"))
    starts.note("a.ipynb", RefusedError("second"))
    assert str(starts.last("a.ipynb").error) == "second"
    assert starts.last("b.ipynb") is None
    starts.forget("a.ipynb")
    assert starts.last("a.ipynb") is None


def test_starts_without_a_name_are_not_kept_and_the_others_not_without_end():
    starts = RefusedStarts()
    starts.note("", RefusedError("nobody's"))
    assert starts.last("") is None
    for number in range(300):
        starts.note(f"{number}.ipynb", RefusedError("x"))
    assert starts.last("0.ipynb") is None
    assert starts.last("299.ipynb") is not None
    assert len(starts._starts) == 256


def _expiring(policy: Policy, when: datetime) -> Policy:
    text = re.sub(r"^expires = .*$", f"expires = {when:%Y-%m-%dT%H:%M:%SZ}", write_policy(policy), flags=re.M)
    return Policy.parse(text)
