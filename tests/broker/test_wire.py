from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealbook.broker import BrokerChannelError, BrokerEndpoint, RemoteBroker, SessionEndedError
from sealbook.broker.wire import MAX_FRAME
from sealbook.encoding import canonical_json
from sealbook.errors import InputError, RefusedError
from sealbook.sealing import KeyProvider, KeyUnavailableError, read_bytes, write_bytes

from .conftest import OTHER_MEASUREMENT


@pytest.fixture
def endpoint(world) -> BrokerEndpoint:
    return BrokerEndpoint(world.broker, world.attest())


@pytest.fixture
def remote(world, endpoint) -> RemoteBroker:
    return RemoteBroker(endpoint.handle, evidence=world.quote)


def ask(endpoint, **fields) -> dict:
    return json.loads(endpoint.handle(canonical_json({"v": 2, "id": 7} | fields)))


def test_a_key_arrives_at_the_kernel(world, remote):
    world.keyring.create("k", guard="own")
    assert isinstance(remote, KeyProvider)
    assert remote.current("k").secret == world.keyring.key("k").secret
    assert remote.get("k", 1).secret == world.keyring.key("k").secret


def test_files_are_sealed_and_unsealed_with_keys_from_the_broker(remote, tmp_path):
    write_bytes(tmp_path / "x.sealed", b"content", key="session/default", keys=remote)
    assert read_bytes(tmp_path / "x.sealed", keys=remote) == b"content"


def test_a_version_is_fetched_once_and_kept_in_memory(world, remote):
    world.keyring.create("k", guard="own")
    for _ in range(3):
        remote.get("k", 1)
        remote.current("k")
    assert len(world.events("release")) == 2
    remote.forget()
    remote.get("k", 1)
    assert len(world.events("release")) == 3


def test_a_rotation_is_noticed_after_a_while(world, endpoint, remote, monkeypatch):
    world.keyring.create("k", guard="own")
    assert remote.current("k").version == 1
    world.keyring.rotate("k")
    assert remote.current("k").version == 1
    monkeypatch.setattr(RemoteBroker, "CURRENT_FOR", 0.0)
    fresh = RemoteBroker(endpoint.handle)
    assert fresh.current("k").version == 2
    world.keyring.rotate("k")
    assert fresh.current("k").version == 3


def test_a_refusal_arrives_as_its_sentence(world, remote):
    world.add_policy("strict", measurement=OTHER_MEASUREMENT)
    world.keyring.create("k", guard="strict")
    with pytest.raises(KeyUnavailableError, match=r"'k' is not released.*measurement"):
        remote.current("k")
    with pytest.raises(KeyUnavailableError, match="no key 'unknown'"):
        remote.get("unknown", 1)


def test_the_broker_s_verdict_and_keys_are_shown_to_the_kernel(world, endpoint, remote):
    world.keyring.create("k", guard="own", description="ours")
    assert remote.result() == endpoint.session.result
    keys = remote.keys()
    assert {(key.name, key.guard, key.description) for key in keys} >= {("k", "own", "ours")}
    assert {key.name for key in keys} == {"k", "session/default"}


def test_what_the_kernel_did_is_recorded(world, remote):
    remote.event("sealed", path="dir/\udcffname", key="k", size=12)
    (entry,) = world.events("artifact")
    assert entry["facts"] == {"path": "dir/\\udcffname", "key": "k", "size": 12}


def test_a_kernel_attests_anew_over_its_channel(world, endpoint, remote):
    before = endpoint.session
    result = remote.attest()
    assert result.accepted
    assert endpoint.session is not before
    assert endpoint.session.result == result
    with pytest.raises(SessionEndedError):
        world.broker.release(before, "session/default")


def test_an_expired_session_renews_itself_where_the_kernel_can_attest(world, endpoint, remote):
    remote.current("session/default")
    remote.forget()
    world.passes(hours=13)
    assert remote.get("session/default", 1).version == 1
    assert len(world.events("attest")) == 2
    world.passes(hours=13)
    with pytest.raises(KeyUnavailableError, match="expired"):
        RemoteBroker(endpoint.handle).current("session/default")


def test_a_kernel_without_evidence_cannot_attest_anew(endpoint):
    with pytest.raises(RefusedError, match="restart"):
        RemoteBroker(endpoint.handle).attest()


def test_attack_43_new_evidence_must_name_the_channel_it_comes_through(world, endpoint):
    def relayed(nonce: bytes) -> bytes:
        return world.quote(nonce, claims={"kernel-key": b"another".ljust(40)})

    before = endpoint.session
    with pytest.raises(RefusedError):
        RemoteBroker(endpoint.handle, evidence=relayed).attest()
    assert endpoint.session is before


def test_attack_43_a_kernel_is_sent_a_nonce_and_nothing_else_to_quote(endpoint):
    assert set(ask(endpoint, op="challenge")["value"]) == {"nonce"}


def test_attack_42_evidence_over_the_channel_needs_a_new_challenge_each_time(world, endpoint):
    nonce = base64.b64decode(ask(endpoint, op="challenge")["value"]["nonce"])
    quote = base64.b64encode(world.quote(nonce)).decode()
    assert ask(endpoint, op="attest", evidence=quote)["ok"]
    again = ask(endpoint, op="attest", evidence=quote)
    assert (again["ok"], again["code"]) == (False, "input")
    ask(endpoint, op="challenge")
    assert not ask(endpoint, op="attest", evidence=quote)["ok"]


def test_attack_50_a_closed_channel_answers_nothing_and_cannot_be_attested_anew(world, endpoint, remote):
    endpoint.close()
    for use in (
        remote.result,
        remote.keys,
        remote.attest,
        remote.ping,
        lambda: remote.current("session/default"),
    ):
        with pytest.raises(RefusedError, match="closed"):
            use()
    assert len(world.events("attest")) == 1


def test_attack_50_after_the_session_ended_elsewhere_no_result_is_shown(world, endpoint):
    world.broker.close_session(endpoint.session)
    with pytest.raises(RefusedError):
        RemoteBroker(endpoint.handle).result()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"\xff",
        b"{" * 70_000,
        b"[" * 40,
        b'{"id":7,"op":"ping","v":1}',
        b'{"id":7,"op":"ping","v":3}',
        b'{"id":-1,"op":"ping","v":2}',
        b'{"id":true,"op":"ping","v":2}',
        b'{"id":1.0,"op":"ping","v":2}',
        b'{"id":7,"op":"handle","v":2}',
        b'{"id":7,"op":"release","v":2}',
        b'{"id":7,"op":"ping","v":2,"x":1}',
        b'{"id":7, "op":"ping","v":2}',
        b'{"id":7,"id":7,"op":"ping","v":2}',
        b'{"id":7,"op":["ping"],"v":2}',
        b'{"id":7,"key":1,"op":"release","purpose":"seal","v":2,"version":null}',
        b'{"id":7,"key":"k","op":"release","purpose":{},"v":2,"version":null}',
        b'{"id":7,"key":"\\ud800","op":"release","purpose":"seal","v":2,"version":null}',
        b'{"evidence":7,"id":7,"op":"attest","v":2}',
        b'{"evidence":"!","id":7,"op":"attest","v":2}',
        b'{"id":7,"op":"attest","quote":"","v":2}',
        b'{"action":"deleted","facts":{},"id":7,"op":"event","v":2}',
        b'{"action":[],"facts":{},"id":7,"op":"event","v":2}',
        b'{"action":"sealed","facts":[],"id":7,"op":"event","v":2}',
        b'{"action":"sealed","facts":{"secret":"x"},"id":7,"op":"event","v":2}',
        b'{"action":"sealed","facts":{"size":"x"},"id":7,"op":"event","v":2}',
        b'{"action":"sealed","facts":{"size":true},"id":7,"op":"event","v":2}',
        canonical_json({"action": "sealed", "facts": {"path": "x" * 5000}, "id": 7, "op": "event", "v": 2}),
    ],
)
def test_attack_55_a_frame_that_is_no_request_is_answered_by_a_sentence(world, endpoint, frame):
    endpoint_answer = json.loads(endpoint.handle(frame))
    assert endpoint_answer["ok"] is False
    assert endpoint_answer["code"] in ("input", "unavailable")
    assert endpoint_answer["error"].endswith(".")
    assert not world.events("artifact")
    assert not [entry for entry in world.events("release") if entry["decision"] == "released"]


def test_attack_55_an_oversize_frame_is_refused(endpoint):
    frame = canonical_json({"id": 7, "op": "ping", "v": 2}) + b" " * MAX_FRAME
    assert "larger than" in json.loads(endpoint.handle(frame))["error"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)).map(canonical_json)
)
def test_no_frame_makes_the_broker_raise(endpoint, frame):
    assert json.loads(endpoint.handle(frame))["ok"] is False


def test_an_error_inside_the_broker_is_answered_without_its_text(world, endpoint, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("the secret is 1234")

    monkeypatch.setattr(world.broker, "keys", fail)
    answer = endpoint.handle(canonical_json({"v": 2, "id": 1, "op": "keys"}))
    assert b"1234" not in answer
    assert json.loads(answer)["code"] == "internal"


ANSWERS = {
    "nothing": b"",
    "no object": b"[]",
    "another number": b'{"id":99,"ok":true,"v":2,"value":{}}',
    "another version": b'{"id":1,"ok":true,"v":1,"value":{}}',
    "too long": b" " * (MAX_FRAME + 1),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_is_refused(answer):
    for use in (lambda r: r.result(), lambda r: r.keys(), lambda r: r.ping()):
        with pytest.raises(BrokerChannelError):
            use(RemoteBroker(lambda _: answer))
    with pytest.raises(KeyUnavailableError):
        RemoteBroker(lambda _: answer).current("k")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"key": "k", "version": 1, "secret": "!"},
        {"key": "k", "version": 1, "secret": base64.b64encode(bytes(31)).decode()},
        {"key": "k", "version": 0, "secret": base64.b64encode(bytes(32)).decode()},
        {"key": "other", "version": 1, "secret": base64.b64encode(bytes(32)).decode()},
    ],
)
def test_an_answer_with_another_key_is_refused_and_not_kept(value):
    remote = RemoteBroker(lambda _: canonical_json({"v": 2, "id": 1, "ok": True, "value": value}))
    with pytest.raises(RefusedError):
        remote.current("k")
    assert not remote._keys


def test_an_answer_with_another_version_is_refused():
    value = {"key": "k", "version": 2, "secret": base64.b64encode(bytes(32)).decode()}
    remote = RemoteBroker(lambda _: canonical_json({"v": 2, "id": 1, "ok": True, "value": value}))
    with pytest.raises(BrokerChannelError, match="another key"):
        remote.get("k", 1)


def test_a_malformed_key_name_is_not_even_sent():
    sent = []
    with pytest.raises(InputError):
        RemoteBroker(lambda frame: sent.append(frame) or b"").current("../x")
    assert not sent


def test_a_request_too_long_is_not_sent(remote):
    with pytest.raises(InputError, match="longer than"):
        remote.event("sealed", path="x" * MAX_FRAME)


def test_nothing_shown_of_the_remote_broker_contains_a_secret(remote):
    secret = remote.current("session/default").secret
    assert secret.hex() not in repr(remote)
    assert repr(secret)[2:-1] not in repr(vars(remote))


def test_several_threads_of_a_kernel_share_one_channel(world, remote):
    for number in range(6):
        world.keyring.create(f"k{number}", guard="own")
    with ThreadPoolExecutor(6) as pool:
        keys = list(pool.map(lambda n: remote.current(f"k{n % 6}"), range(24)))
    assert [key.name for key in keys] == [f"k{n % 6}" for n in range(24)]
    assert world.audit.verify().ok


def test_an_appraisal_is_a_fresh_verdict_with_the_chain_and_the_channel(world, endpoint, remote):
    before = remote.result()
    world.passes(minutes=5)
    appraisal = remote.appraisal()
    assert appraisal.result.accepted
    assert appraisal.result.verified_at > before.verified_at
    assert appraisal.expires == endpoint.session.expires_at
    assert [link["name"] for link in appraisal.chain][:2] == ["Quote", "Quoting enclave"]
    assert appraisal.channel["audience"] == endpoint.session.audience
    assert [claim["name"] for claim in appraisal.channel["claims"]] == ["client-key", "kernel-key"]


def test_a_refusing_verdict_is_told_and_shows_what_failed(world):
    rules = replace(world.policy.collateral, max_age_seconds=4 * 3600)
    endpoint = BrokerEndpoint(world.broker, world.attest(policy=replace(world.policy, collateral=rules)))
    remote = RemoteBroker(endpoint.handle, evidence=world.quote)
    assert remote.appraisal().result.accepted
    world.passes(hours=6)
    appraisal = remote.appraisal()
    assert not appraisal.result.accepted
    failed = [check["name"] for link in appraisal.chain for check in link["checks"] if not check["passed"]]
    assert "collateral-age" in failed


def test_a_session_that_has_ended_is_not_appraised(world, endpoint, remote):
    world.passes(hours=13)
    with pytest.raises(SessionEndedError):
        remote.appraisal(renew=False)
    with pytest.raises(SessionEndedError):
        world.broker.appraise(endpoint.session)
    # Asked for by a person, it attests anew, as a key would.
    assert remote.appraisal().result.accepted


def test_an_appraisal_fits_a_frame_whatever_is_in_the_evidence(world, endpoint, monkeypatch):
    from sealbook.broker import wire

    whole = endpoint.handle(canonical_json({"v": 2, "id": 7, "op": "appraisal"}))
    assert len(whole) < MAX_FRAME / 2
    limit = len(whole) - 200
    monkeypatch.setattr(wire, "_MAX_APPRAISAL", limit)
    answer = ask(endpoint, op="appraisal")["value"]
    assert len(canonical_json(answer)) <= limit
    assert not any(link["facts"] for link in answer["chain"])
    assert all(link["checks"] for link in answer["chain"])
    monkeypatch.setattr(wire, "_MAX_APPRAISAL", 100)
    assert ask(endpoint, op="appraisal")["ok"] is False


def test_whoever_shows_the_verdict_hears_of_every_attempt_and_cannot_undo_it(world, endpoint):
    heard = []

    def fail(outcome):
        heard.append(outcome)
        raise ValueError("a window that was closed")

    remote = RemoteBroker(endpoint.handle, evidence=world.quote)
    remote.on_attest.append(fail)
    result = remote.attest()
    other = RemoteBroker(endpoint.handle, evidence=lambda nonce: b"no quote")
    other.on_attest.append(fail)
    with pytest.raises(RefusedError):
        other.attest()
    assert heard[0] == result
    assert isinstance(heard[1], RefusedError)


@pytest.mark.parametrize(
    "answer", [{}, {"chain": 1}, {"result": {}, "expires": "x", "chain": [], "channel": {}}]
)
def test_an_answer_that_is_no_appraisal_is_refused(answer):
    reply = canonical_json({"v": 2, "id": 1, "ok": True, "value": answer})
    with pytest.raises(BrokerChannelError):
        RemoteBroker(lambda frame: reply).appraisal()
