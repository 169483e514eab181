"""Which keys a process gets, attested and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sealbook import artifacts, sealing, session
from sealbook.broker import Keyring
from sealbook.errors import InputError, RefusedError
from sealbook.sealing import KeyUnavailableError


def test_an_attested_session_is_labelled_simulated_and_has_session_keys(brokered: Any) -> None:
    now = session.current()
    assert now.attested
    assert now.label == "simulated"
    assert now.result is not None
    assert "simulated" in now.result.summary()
    assert now.default_key == "session/default"
    assert now.keys.current("session/default").name == "session/default"


def test_an_attested_session_lists_guarded_and_unguarded_keys(brokered: Any) -> None:
    brokered.keyring.create("team/data", guard="kernel")
    session.current().keys.current("session/default")
    entries = {entry.name: entry for entry in session.current().key_entries()}
    assert entries["team/data"].usable
    assert entries["team/data"].guard == "kernel"
    assert "session/default" in entries


def test_attesting_again_gives_new_evidence(brokered: Any) -> None:
    before = session.current().result
    after = session.current().reattest()
    assert before is not None
    assert after.evidence_id != before.evidence_id
    assert session.current().result is after


def test_a_second_broker_is_refused(brokered: Any) -> None:
    with pytest.raises(InputError, match="already has a session"):
        session.attach(brokered.remote)


def test_the_host_cannot_choose_the_key_of_an_attested_kernel(
    brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(session.KEY_VARIABLE, "open")
    session.detach()
    assert session.current().default_key == "open"
    session.attach(brokered.remote)
    assert session.current().default_key == "session/default"


def test_an_unattested_session_says_so_and_attests_nothing(keyring: Keyring) -> None:
    now = session.current()
    assert not now.attested
    assert now.result is None
    assert now.label == "not attested"
    assert now.sealer == {"attested": False}
    with pytest.raises(RefusedError, match=r"not attested .*sealbook-simulated"):
        now.reattest()


def test_an_unattested_session_gets_unguarded_keys_only(keyring: Keyring) -> None:
    keys = session.current().keys
    key = keys.current("open")
    assert keys.get("open", 1).secret == key.secret
    for ask in (lambda: keys.current("guarded"), lambda: keys.get("guarded", 1)):
        with pytest.raises(
            KeyUnavailableError, match=r"demands attestation \(policy 'kernel'\).* not attested"
        ):
            ask()


@pytest.mark.parametrize("name", ["session/default", "session/other"])
def test_an_unattested_session_gets_no_session_key(keyring: Keyring, name: str) -> None:
    for ask in (session.current().keys.current, lambda name: session.current().keys.get(name, 1)):
        with pytest.raises(KeyUnavailableError, match="no session key"):
            ask(name)


def test_an_unattested_session_lists_which_keys_it_may_use(keyring: Keyring) -> None:
    assert {entry.name: entry.usable for entry in session.current().key_entries()} == {
        "open": True,
        "guarded": False,
    }


def test_the_environment_names_the_default_key_of_an_unattested_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(session.KEY_VARIABLE, "team/data")
    assert session.UnattestedSession().default_key == "team/data"
    monkeypatch.setenv(session.KEY_VARIABLE, "No Such Name")
    with pytest.raises(InputError, match="not a key name"):
        session.UnattestedSession()


def test_a_default_key_must_be_a_key_name(brokered: Any) -> None:
    with pytest.raises(InputError, match="not a key name"):
        session.current().default_key = "../x"


def test_sealed_urls_get_their_keys_from_the_session(brokered: Any) -> None:
    assert sealing.default_keys() is session.current().keys
    assert sealing.default_key_name() == "session/default"


def test_a_session_shows_no_secret(brokered: Any) -> None:
    key = session.current().keys.current("session/default")
    shown = repr(session.current()) + repr(session.current().key_entries()) + repr(session.current().keys)
    assert key.secret.hex() not in shown
    assert repr(key.secret) not in shown


# -- a broker, but no evidence (Gramine without SGX) -------------------------------------------


def test_a_session_without_evidence_has_a_broker_and_says_that_it_is_not_attested(unattested: Any) -> None:
    now = session.current()
    assert not now.attested
    assert now.label == "not attested"
    assert now.result is not None
    assert now.result.accepted
    assert now.sealer == {"attested": False, "tee": "gramine-direct"}
    assert now.keys.current("session/default").name == "session/default"
    assert now.reattest().label == "not attested"


def test_a_session_without_evidence_gets_no_key_that_anything_else_guards(unattested: Any) -> None:
    unattested.keyring.create("open", guard="none")
    unattested.keyring.create("accepting", guard="kernel")
    keys = session.current().keys
    assert keys.current("accepting").name == "accepting"
    with pytest.raises(KeyUnavailableError, match="No policy guards the key 'open'"):
        keys.current("open")
    assert {entry.name for entry in session.current().key_entries()} == {"accepting", "session/default"}


def test_what_is_sealed_without_evidence_says_so_in_its_header(unattested: Any, tmp_path: Path) -> None:
    artifact = artifacts.seal({"a": 1}, tmp_path / "x.sealed")
    assert artifact.label == "not attested"
    assert "not attested" in repr(artifact)
    assert "not attested kernel" in artifact._repr_html_()
    assert sealing.inspect(tmp_path / "x.sealed").sealer == {"attested": False, "tee": "gramine-direct"}
    assert artifacts.unseal(tmp_path / "x.sealed") == {"a": 1}


def test_what_is_sealed_in_an_attested_kernel_says_with_which_measurement(
    brokered: Any, tmp_path: Path
) -> None:
    artifacts.seal("text", tmp_path / "x.sealed")
    assert sealing.inspect(tmp_path / "x.sealed").sealer == {
        "attested": True,
        "measurement": "05" * 32,
        "simulated": True,
    }
