"""Which keys a kernel that is not attested gets: those whose policy admits its kind by name, no others."""

from __future__ import annotations

import base64
import json

import pytest

from sealbook.attestation import (
    AttestationRefusedError,
    Policy,
    StaleNonceError,
    UnattestedAttester,
    UnattestedStatement,
    policy_text,
    report_data,
)
from sealbook.broker import (
    DEFAULT_SESSION_KEY,
    AttestedSession,
    BrokerEndpoint,
    ReleaseRefusedError,
    RemoteBroker,
    SessionEndedError,
)
from sealbook.broker.session import TooManySessionsError
from sealbook.encoding import canonical_json
from sealbook.errors import RefusedError
from sealbook.sealing import KeyUnavailableError

from .conftest import AUDIENCE, CLAIMS, World


def statement(nonce: bytes, *, role: str = "kernel", audience: str = AUDIENCE, claims=CLAIMS) -> bytes:
    bound = report_data(role=role, audience=audience, nonce=nonce, claims=claims)
    return UnattestedAttester().quote(bound)


def direct_policy(world: World, name: str = "direct", **kw) -> Policy:
    world.policies[name] = Policy.parse(policy_text(id=name, tee="gramine-direct", now=world.start, **kw))
    return world.policies[name]


def open_session(world: World, policy: Policy | None = None, **bound) -> AttestedSession:
    policy = policy or direct_policy(world)
    nonce = world.broker.challenge(policy)
    return world.attest(policy=policy, nonce=nonce, quote=statement(nonce, **bound))


# -- opening a session -------------------------------------------------------------------------


def test_a_kernel_without_evidence_gets_a_session_that_says_so_in_the_log_too(world):
    session = open_session(world)
    assert not session.attested
    assert session.result.label == "not attested"
    (entry,) = world.events("attest")
    assert (entry["decision"], entry["attested"], entry["simulated"]) == ("accepted", False, False)
    assert (entry["measurement"], entry["status"]) == ("", "none")
    assert entry["evidence"] == UnattestedStatement.parse(session.evidence).identity
    assert world.attest().attested
    assert world.events("attest")[-1]["attested"] is True


def test_a_kernel_without_evidence_is_refused_where_evidence_is_asked_for(world):
    nonce = world.broker.challenge()
    with pytest.raises(AttestationRefusedError, match="not attested: it runs in Gramine without SGX"):
        world.attest(nonce=nonce, quote=statement(nonce))
    (entry,) = world.events("attest")
    assert (entry["decision"], entry["attested"]) == ("refused", False)


def test_a_quote_is_refused_where_only_kernels_without_evidence_are_admitted(world):
    with pytest.raises(AttestationRefusedError, match="admits only kernels of tee 'gramine-direct'"):
        world.attest(policy=direct_policy(world))


def test_nobody_is_asked_for_collateral_of_a_kernel_that_names_no_platform(world):
    class Forbidden:
        """A source that must not be asked, because it might ask the network."""

        def collateral_for(self, quote):
            pytest.fail("it was asked")

    world.broker._collateral = Forbidden()
    session = open_session(world)
    world.broker.release(session, DEFAULT_SESSION_KEY, purpose="seal")
    nonce = world.broker.challenge()
    for policy, evidence in ((world.policy, statement(nonce)), (direct_policy(world), world.quote(nonce))):
        with pytest.raises(RefusedError):
            world.attest(policy=policy, quote=evidence)


def test_a_statement_is_good_once_and_for_its_own_channel_only(world):
    policy = direct_policy(world)
    nonce = world.broker.challenge(policy)
    world.attest(policy=policy, nonce=nonce, quote=statement(nonce))
    with pytest.raises(StaleNonceError):
        world.attest(policy=policy, nonce=nonce, quote=statement(nonce))
    for other in (
        {"claims": CLAIMS | {"kernel-key": b"x" * 40}},
        {"role": "worker"},
        {"audience": "somebody else"},
    ):
        with pytest.raises(AttestationRefusedError, match="another challenge, channel or purpose"):
            open_session(world, policy, **other)


@pytest.mark.parametrize("odd", [b"{", b"{}", b'{"type":"not attested"}', b"{" * 10_000, b"\x03\x00"])
def test_what_is_no_statement_opens_nothing_and_is_recorded(world, odd):
    with pytest.raises(RefusedError):
        world.attest(policy=direct_policy(world), quote=odd)
    (entry,) = world.events("attest")
    assert entry["decision"] == "refused"


def test_the_rules_of_the_policy_hold_without_evidence_too(world):
    text = policy_text(id="few", tee="gramine-direct", now=world.start)
    text = text.replace("ttl_seconds = 43200", "ttl_seconds = 60\nmax_sessions = 1\nmax_uses = 1")
    world.policies["few"] = policy = Policy.parse(text)
    session = open_session(world, policy)
    nonce, elsewhere = world.broker.challenge(policy), {"kernel-key": b"x" * 40}
    with pytest.raises(TooManySessionsError):
        world.attest(policy=policy, nonce=nonce, claims=elsewhere, quote=statement(nonce, claims=elsewhere))
    world.broker.release(session, DEFAULT_SESSION_KEY)
    with pytest.raises(ReleaseRefusedError, match="1 times"):
        world.broker.release(session, DEFAULT_SESSION_KEY)
    world.passes(seconds=61)
    with pytest.raises(SessionEndedError):
        world.broker.release(session, DEFAULT_SESSION_KEY)


# -- keys --------------------------------------------------------------------------------------


def test_a_key_whose_policy_names_such_kernels_is_released_and_recorded_as_what_it_is(world):
    session = open_session(world)
    world.keyring.create("k", guard="direct")
    assert world.broker.release(session, "k").secret == world.keyring.key("k").secret
    (entry,) = world.events("release")
    assert (entry["decision"], entry["attested"], entry["guard"]) == ("released", False, "direct")


def test_a_key_that_a_simulated_policy_guards_is_not_released(world):
    session = open_session(world)
    world.keyring.create("k", guard="own")
    for ask in (
        lambda: world.broker.release(session, "k"),
        lambda: world.broker.release(session, "k", 1),
        lambda: world.broker.release(session, "k", purpose="seal"),
    ):
        with pytest.raises(ReleaseRefusedError, match="'k' is not released: The kernel is not attested"):
            ask()
    assert {entry["decision"] for entry in world.events("release")} == {"refused"}


def test_a_key_that_intels_root_guards_is_not_released(world):
    world.policies["hardware"] = Policy.parse(policy_text(mrenclave=b"\x11" * 32, now=world.start))
    world.keyring.create("k", guard="hardware")
    with pytest.raises(ReleaseRefusedError, match="not attested"):
        world.broker.release(open_session(world), "k")


def test_a_key_that_nothing_guards_is_not_released_to_a_kernel_that_is_not_attested(world):
    world.keyring.create("open", guard="none")
    session = open_session(world)
    for version, purpose in ((None, "seal"), (None, "unseal"), (1, "unseal")):
        with pytest.raises(
            ReleaseRefusedError, match=r"No policy guards .*sealbook keys guard open"
        ) as refused:
            world.broker.release(session, "open", version, purpose)
        assert "tee = 'gramine-direct'" in str(refused.value)
        assert str(refused.value).endswith(".")
    assert [entry["decision"] for entry in world.events("release")] == ["refused"] * 3
    assert {entry["guard"] for entry in world.events("release")} == {"none"}
    # The control: an attested kernel gets it, as before.
    assert world.broker.release(world.attest(), "open").name == "open"


def test_a_key_for_kernels_without_evidence_is_not_released_to_an_attested_one(world):
    direct_policy(world)
    world.keyring.create("k", guard="direct")
    with pytest.raises(ReleaseRefusedError, match="admits only kernels of tee 'gramine-direct'"):
        world.broker.release(world.attest(), "k")


def test_only_the_keys_it_would_get_are_listed(world):
    direct_policy(world)
    for name, guard in (("open", "none"), ("own", "own"), ("mine", "direct")):
        world.keyring.create(name, guard=guard)
    listed = {record.name for record in world.broker.keys(open_session(world))}
    assert listed == {"mine", DEFAULT_SESSION_KEY}
    assert {record.name for record in world.broker.keys(world.attest())} == {
        "open",
        "own",
        DEFAULT_SESSION_KEY,
    }


def test_session_keys_are_not_shared_with_attested_kernels_in_either_direction(world):
    direct, attested = open_session(world), world.attest()
    first = world.broker.release(direct, DEFAULT_SESSION_KEY, purpose="seal")
    second = world.broker.release(attested, DEFAULT_SESSION_KEY, purpose="seal")
    assert first.secret != second.secret
    assert (first.version, second.version) == (1, 2)
    assert world.broker.release(direct, DEFAULT_SESSION_KEY, 1).secret == first.secret
    for session, version in ((direct, 2), (attested, 1)):
        with pytest.raises(ReleaseRefusedError, match="made under another policy"):
            world.broker.release(session, DEFAULT_SESSION_KEY, version)


def test_a_policy_for_fewer_keys_gives_no_others(world):
    session = open_session(world, direct_policy(world, keys=("team/*",)))
    world.keyring.create("team/a", guard="direct")
    world.keyring.create("other", guard="direct")
    assert world.broker.release(session, "team/a").name == "team/a"
    for name in ("other", DEFAULT_SESSION_KEY):
        with pytest.raises(ReleaseRefusedError, match="does not grant"):
            world.broker.release(session, name)


def test_a_guard_that_becomes_stricter_counts_at_once(world):
    session = open_session(world)
    world.keyring.create("k", guard="direct")
    assert world.broker.release(session, "k")
    world.keyring.set_guard("k", "own")
    with pytest.raises(ReleaseRefusedError, match="not attested"):
        world.broker.release(session, "k")


# -- over the wire -----------------------------------------------------------------------------


@pytest.fixture
def endpoint(world) -> BrokerEndpoint:
    return BrokerEndpoint(world.broker, open_session(world))


def test_the_kernel_is_told_that_it_is_not_attested_and_can_say_so_anew(endpoint):
    remote = RemoteBroker(endpoint.handle, evidence=statement)
    assert not remote.result().attested
    assert remote.attest().label == "not attested"
    assert remote.current(DEFAULT_SESSION_KEY).name == DEFAULT_SESSION_KEY


def test_a_session_without_evidence_cannot_become_another_kind(world, endpoint):
    remote = RemoteBroker(endpoint.handle, evidence=world.quote)
    with pytest.raises(RefusedError, match="admits only kernels"):
        remote.attest()
    assert not endpoint.session.attested
    with pytest.raises(SessionEndedError):
        remote.result()


def test_an_attested_session_cannot_be_renewed_without_evidence(world):
    session = world.attest()
    endpoint = BrokerEndpoint(world.broker, session)
    remote = RemoteBroker(endpoint.handle, evidence=statement)
    with pytest.raises(RefusedError, match="not attested"):
        remote.attest()
    assert endpoint.session is session


def test_the_refusal_of_an_unguarded_key_arrives_as_its_sentence(world, endpoint):
    world.keyring.create("open", guard="none")
    with pytest.raises(KeyUnavailableError, match="No policy guards the key 'open'"):
        RemoteBroker(endpoint.handle).current("open")


def test_a_message_of_the_version_before_is_not_taken_for_one_of_this(world, endpoint):
    nonce = world.broker.challenge()
    old = {"v": 1, "id": 1, "op": "attest", "quote": base64.b64encode(statement(nonce)).decode()}
    answer = json.loads(endpoint.handle(canonical_json(old)))
    assert not answer["ok"]
    assert "version 2" in answer["error"]
