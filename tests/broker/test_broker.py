from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealbook.attestation import AttestationRefusedError, CollateralMemory, StaleNonceError
from sealbook.attestation.simulated import Measurement
from sealbook.broker import (
    AuditError,
    ClockError,
    KeyringLockedError,
    PassphraseFileStore,
    ReleaseRefusedError,
    SessionEndedError,
)
from sealbook.broker import broker as broker_module
from sealbook.broker.keyring import Keyring
from sealbook.broker.passphrase import inherited
from sealbook.broker.session import SessionTable, TooManySessionsError
from sealbook.errors import InputError, RefusedError

from .conftest import AUDIENCE, CLAIMS, MEASUREMENT, OTHER_MEASUREMENT, World


def with_release(**fields):
    """Edit a policy's text so that [release] has these fields."""

    def edit(text: str) -> str:
        head, _, rest = text.partition("[release]\n")
        lines = [line for line in rest.splitlines() if line.split(" ")[0] not in fields]
        return (
            "\n".join([head + "[release]", *lines, *(f"{name} = {value}" for name, value in fields.items())])
            + "\n"
        )

    return edit


# -- opening a session ---------------------------------------------------------------------------


def test_good_evidence_opens_a_session_that_says_simulated(world):
    session = world.attest()
    assert session.result.accepted
    assert session.result.simulated
    assert session.expires_at > world.now()
    (entry,) = world.events("attest")
    assert entry["decision"] == "accepted"
    assert (entry["session"], entry["measurement"], entry["simulated"]) == (session.id, "11" * 32, True)


def test_attack_42_a_nonce_that_was_used_is_refused(world):
    nonce = world.broker.challenge()
    quote = world.quote(nonce)
    world.attest(nonce=nonce, quote=quote)
    with pytest.raises(StaleNonceError, match="used before"):
        world.attest(nonce=nonce, quote=quote)


def test_attack_42_a_nonce_whose_attestation_failed_is_used_up(world):
    nonce = world.broker.challenge()
    with pytest.raises(RefusedError):
        world.attest(nonce=nonce, quote=b"nonsense")
    with pytest.raises(StaleNonceError):
        world.attest(nonce=nonce)


def test_attack_42_a_nonce_is_refused_after_the_time_its_policy_gives(world):
    short = world.add_policy(
        "short", edit=lambda text: text.replace("nonce_ttl_seconds = 60", "nonce_ttl_seconds = 5")
    )
    for policy, seconds in ((short, 6), (world.policy, 61)):
        nonce = world.broker.challenge(policy)
        quote = world.quote(nonce)
        world.passes(seconds=seconds)
        with pytest.raises(StaleNonceError, match="older than"):
            world.attest(nonce=nonce, quote=quote, policy=policy)
    nonce = world.broker.challenge(short)
    world.passes(seconds=4)
    world.attest(nonce=nonce, policy=short)


def test_attack_43_evidence_for_one_channel_is_refused_on_another(world):
    nonce = world.broker.challenge()
    relayed = world.quote(nonce, claims=CLAIMS | {"kernel-key": b"genuine enclave's".ljust(40)})
    with pytest.raises(AttestationRefusedError):
        world.attest(nonce=nonce, quote=relayed)
    nonce = world.broker.challenge()
    with pytest.raises(AttestationRefusedError):
        world.attest(nonce=nonce, quote=world.quote(nonce, claims={"kernel-key": CLAIMS["kernel-key"]}))
    assert [entry["decision"] for entry in world.events("attest")] == ["refused", "refused"]


def test_attack_45_evidence_of_another_role_is_refused(world):
    nonce = world.broker.challenge()
    with pytest.raises(AttestationRefusedError):
        world.attest(nonce=nonce, quote=world.quote(nonce, role="worker"))


def test_attack_45_evidence_for_another_audience_is_refused(world):
    nonce = world.broker.challenge()
    with pytest.raises(AttestationRefusedError):
        world.attest(nonce=nonce, quote=world.quote(nonce, audience="somebody else"))


@pytest.mark.parametrize(("field", "value"), [("roles", '["worker"]'), ("audiences", '["somebody else"]')])
def test_attack_45_a_policy_for_another_role_or_audience_opens_no_session(world, field, value):
    policy = world.add_policy("workers", edit=with_release(**{field: value}))
    with pytest.raises(RefusedError, match="workers"):
        world.attest(policy=policy)


def test_attack_59_of_many_concurrent_uses_of_one_nonce_one_wins(world):
    nonce = world.broker.challenge()
    quote = world.quote(nonce)
    gate = threading.Barrier(8)

    def use(_: int) -> bool:
        gate.wait()
        try:
            world.attest(nonce=nonce, quote=quote)
        except StaleNonceError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 1


def test_attack_60_a_restarted_broker_accepts_no_earlier_nonce(world):
    nonce = world.broker.challenge()
    quote = world.quote(nonce)
    world.broker = world.new_broker()
    with pytest.raises(StaleNonceError, match="not issued here"):
        world.attest(nonce=nonce, quote=quote)


def test_evidence_that_is_no_quote_is_refused_and_recorded(world):
    with pytest.raises(RefusedError):
        world.attest(quote=b"\x03" + bytes(1000))
    (entry,) = world.events("attest")
    assert entry["decision"] == "refused"
    assert entry["reasons"]


#: Any text, also with halves of surrogate pairs, which neither UTF-8 nor JSON can say.
ODD_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40) | st.sampled_from(
    ["", "\ud800", "a\udfff", "\udcff" * 3, "\0", "x" * 2000, "x" * 200_000, "\ud83d\ude00", AUDIENCE]
)


@pytest.fixture(scope="module")
def one_world(platform, tmp_path_factory) -> World:
    """One for all examples."""
    return World(platform, tmp_path_factory.mktemp("fuzz"))


def refuses_and_records(world: World, quote, nonce: bytes, **bound) -> None:
    """Attest; it is accepted, or refused by a sentence that stands in the log, and the nonce is used up."""
    given_up = {"role": "kernel", "audience": AUDIENCE, "claims": CLAIMS} | bound
    before = len(world.events("attest"))
    with suppress(RefusedError, InputError):
        world.broker.close_session(world.broker.attest(quote, nonce=nonce, policy=world.policy, **given_up))
    assert len(world.events("attest")) == before + 1
    last = world.events("attest")[-1]
    assert last["decision"] == "accepted" or all(last["reasons"])
    with pytest.raises(StaleNonceError):
        world.broker.attest(world.quote(nonce), nonce=nonce, policy=world.policy, role="kernel",
                            audience=AUDIENCE, claims=CLAIMS)  # fmt: skip
    assert world.audit.verify().ok
    world.audit.path.unlink()
    world.audit.path.with_name("audit.jsonl.head").unlink()


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(
    quote=st.binary(max_size=20_000),
    role=ODD_TEXT | st.just("kernel"),
    audience=ODD_TEXT,
    claims=st.dictionaries(ODD_TEXT, st.binary(max_size=8), max_size=3),
)
def test_whatever_stands_in_evidence_and_its_binding_is_at_most_a_recorded_refusal(
    one_world, quote, role, audience, claims
):
    nonce = one_world.broker.challenge(one_world.policy)
    refuses_and_records(one_world, quote, nonce, role=role, audience=audience, claims=claims)


@FUZZ
@given(data=st.data())
def test_whatever_is_changed_in_a_quote_is_at_most_a_recorded_refusal(one_world, data):
    nonce = one_world.broker.challenge(one_world.policy)
    quote = bytearray(one_world.quote(nonce))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(quote) - 1))
        quote[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    refuses_and_records(one_world, bytes(quote), nonce)


@pytest.mark.parametrize("bound", [
    {"audience": "\ud800"}, {"role": "\udfff"}, {"audience": ""}, {"audience": None}, {"role": 7},
    {"claims": {"\ud800": b""}}, {"claims": {"": b""}}, {"claims": {"a": 5}}, {"claims": {"a": "text"}},
    {"claims": {str(n): b"" for n in range(65)}}, {"audience": "x" * 1_000_000}, {"quote": None},
    {"quote": "text"}, {"quote": bytearray(9)},
], ids=lambda bound: next(iter(bound)))  # fmt: skip
def test_odd_arguments_of_an_attestation_are_recorded_refusals(world, bound):
    bound = dict(bound)
    nonce = world.broker.challenge(world.policy)
    cause = "byte string" if "quote" in bound else "Role, audience and|Evidence binds"
    with pytest.raises((RefusedError, InputError), match=cause):
        world.broker.attest(
            bound.pop("quote", world.quote(nonce)),
            nonce=nonce,
            policy=world.policy,
            **({"role": "kernel", "audience": AUDIENCE, "claims": CLAIMS} | bound),
        )
    (entry,) = world.events("attest")
    assert entry["decision"] == "refused"


@pytest.mark.parametrize("nonce", [None, "text", 32, [1]])
def test_a_nonce_that_is_no_byte_string_is_refused(world, nonce):
    with pytest.raises(InputError, match="byte string"):
        world.broker.attest(b"", role="kernel", audience="x", nonce=nonce, claims={}, policy=world.policy)


def test_a_collateral_source_that_fails_on_a_quote_is_a_recorded_refusal(world):
    class Failing:
        """A source with an error in it; the real ones have none that we know of."""

        def collateral_for(self, quote):
            raise IndexError("secret detail")

    world.broker._collateral = Failing()
    with pytest.raises(RefusedError, match="IndexError") as refused:
        world.attest()
    assert "secret detail" not in str(refused.value)
    assert world.events("attest")[-1]["decision"] == "refused"


def test_a_key_name_that_is_no_unicode_is_a_recorded_refusal(world):
    with pytest.raises(ReleaseRefusedError):
        world.broker.release(world.attest(), "session/\ud800")
    assert world.events("release")[-1]["key"] == "session/\\ud800"


def test_every_reason_of_a_refusal_is_in_the_log(world):
    world.attester = world.platform.attester(OTHER_MEASUREMENT)
    with pytest.raises(AttestationRefusedError) as refused:
        world.attest(claims={})
    (entry,) = world.events("attest")
    assert entry["reasons"] == [refusal.reason for refusal in refused.value.result.refusals]
    assert len(entry["reasons"]) >= 2


def test_a_session_that_cannot_be_recorded_is_not_opened(world):
    world.audit.path.with_name("audit.jsonl.head").write_bytes(b"x")
    with pytest.raises(AuditError):
        world.attest()
    assert not world.broker._sessions._open


def test_a_policy_may_limit_the_sessions_at_one_time(world):
    policy = world.add_policy("two", edit=with_release(max_sessions=2))
    first = world.attest(policy=policy)

    def another(number: int):
        claims = CLAIMS | {"kernel-key": bytes([number]) * 40}
        nonce = world.broker.challenge(policy)
        return world.attest(
            nonce=nonce, quote=world.quote(nonce, claims=claims), claims=claims, policy=policy
        )

    another(1)
    with pytest.raises(TooManySessionsError, match="2 sessions"):
        another(2)
    world.attest(policy=policy)  # anew on its own channel: no further place
    world.attest()  # another policy
    world.broker.close_session(first)
    with pytest.raises(TooManySessionsError):  # the one that attested anew is still there
        another(2)


def test_the_number_of_sessions_is_bounded_and_expired_ones_make_room(world, monkeypatch):
    monkeypatch.setattr("sealbook.broker.session.MAX_SESSIONS", 2)
    world.attest()
    world.attest()
    with pytest.raises(TooManySessionsError, match="2 open sessions"):
        world.attest()
    world.passes(hours=13)
    world.attest()


# -- releasing keys ------------------------------------------------------------------------------


def test_a_guarded_key_is_released_to_the_enclave_its_policy_admits(world):
    world.keyring.create("team/data", guard="own")
    session = world.attest()
    key = world.broker.release(session, "team/data", purpose="seal")
    assert key.secret == world.keyring.key("team/data").secret
    (entry,) = world.events("release")
    assert {
        k: entry[k] for k in ("decision", "key", "version", "purpose", "guard", "session", "measurement")
    } == {
        "decision": "released",
        "key": "team/data",
        "version": 1,
        "purpose": "seal",
        "guard": "own",
        "session": session.id,
        "measurement": "11" * 32,
    }


def test_the_log_never_contains_a_secret(world):
    world.keyring.create("k", guard="own")
    secret = world.broker.release(world.attest(), "k").secret
    content = world.audit.path.read_bytes()
    assert secret not in content
    assert secret.hex().encode() not in content
    import base64

    assert base64.b64encode(secret) not in content


def test_attack_48_a_key_is_not_released_to_an_enclave_its_own_policy_does_not_admit(world):
    world.add_policy("strict", measurement=OTHER_MEASUREMENT)
    world.keyring.create("mine", guard="own")
    world.keyring.create("theirs", guard="strict")
    session = world.attest()
    world.broker.release(session, "mine")
    with pytest.raises(ReleaseRefusedError, match="'theirs' is not released"):
        world.broker.release(session, "theirs")
    refused = world.events("release")[-1]
    assert (refused["decision"], refused["guard"]) == ("refused", "strict")
    assert refused["reasons"]


def test_attack_48_a_key_that_its_policy_does_not_list_is_not_released(world):
    world.add_policy("one", keys=("team/a", "lab/*"))
    for name in ("team/a", "team/b", "lab/x"):
        world.keyring.create(name, guard="one")
    session = world.attest()
    world.broker.release(session, "team/a")
    world.broker.release(session, "lab/x")
    with pytest.raises(ReleaseRefusedError, match="does not grant the key 'team/b'"):
        world.broker.release(session, "team/b")


@pytest.mark.parametrize(("field", "value"), [("roles", '["worker"]'), ("audiences", '["somebody else"]')])
def test_attack_48_a_key_is_for_the_roles_and_audiences_of_its_policy(world, field, value):
    world.add_policy("guard", edit=with_release(**{field: value}))
    world.keyring.create("k", guard="guard")
    with pytest.raises(ReleaseRefusedError, match="guard"):
        world.broker.release(world.attest(), "k")


def test_a_key_is_released_as_often_as_its_policy_allows_and_not_once_more(world):
    world.add_policy("twice", edit=with_release(max_uses=2))
    world.keyring.create("k", guard="twice")
    session = world.attest()
    world.broker.release(session, "k")
    world.broker.release(session, "k")
    with pytest.raises(ReleaseRefusedError, match="2 times"):
        world.broker.release(session, "k")
    # Attesting anew on the same channel is no way around it; a new channel is another kernel.
    again = world.attest()
    world.broker.close_session(session)
    with pytest.raises(ReleaseRefusedError, match="2 times"):
        world.broker.release(again, "k")
    world.broker.close_session(again)
    world.broker.release(world.attest(), "k")


def test_of_many_concurrent_releases_only_the_allowed_ones_happen(world):
    world.add_policy("thrice", edit=with_release(max_uses=3))
    world.keyring.create("k", guard="thrice")
    session = world.attest()

    def release(_: int) -> bool:
        try:
            world.broker.release(session, "k")
        except ReleaseRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(release, range(12))) == 3
    assert world.audit.verify().ok
    assert sum(entry["decision"] == "released" for entry in world.events("release")) == 3


def test_evidence_too_old_for_the_keys_policy_is_refused(world):
    world.add_policy("fresh", edit=with_release(ttl_seconds=100))
    world.keyring.create("k", guard="fresh")
    session = world.attest()
    world.passes(seconds=99)
    world.broker.release(session, "k")
    world.passes(seconds=2)
    with pytest.raises(SessionEndedError, match="older than the 100 seconds"):
        world.broker.release(session, "k")
    world.broker.release(world.attest(), "k")


def test_the_guard_is_read_anew_at_every_release(world):
    world.keyring.create("k", guard="own")
    session = world.attest()
    world.broker.release(session, "k")
    world.add_policy("own", measurement=OTHER_MEASUREMENT)
    with pytest.raises(ReleaseRefusedError):
        world.broker.release(session, "k")


def test_a_key_whose_policy_has_expired_is_not_released(world):
    world.add_policy("brief", days=1)
    world.keyring.create("k", guard="brief")
    world.passes(days=2)
    with pytest.raises(ReleaseRefusedError, match="expired"):
        world.broker.release(world.attest(), "k")


def test_a_key_whose_policy_is_missing_is_not_released(world):
    world.keyring.create("k", guard="gone")
    with pytest.raises(ReleaseRefusedError, match="no policy 'gone'"):
        world.broker.release(world.attest(), "k")


def test_the_key_that_signs_for_images_is_released_to_nobody_whatever_its_guard(world):
    from sealbook.broker.ownership import OWNER_KEY, make_owner

    make_owner(world.keyring)
    for guard in (OWNER_KEY, "none", "own"):
        world.keyring.set_guard(OWNER_KEY, guard)
        with pytest.raises(ReleaseRefusedError):
            world.broker.release(world.attest(), OWNER_KEY)


def test_an_unguarded_key_is_released_to_every_live_session(world):
    world.keyring.create("k", guard="none")
    session = world.attest()
    assert world.broker.release(session, "k").secret == world.keyring.key("k").secret
    world.broker.close_session(session)
    with pytest.raises(SessionEndedError):
        world.broker.release(session, "k")


def test_old_versions_unseal_and_the_current_one_seals(world):
    world.keyring.create("k", guard="own")
    world.keyring.rotate("k")
    session = world.attest()
    assert world.broker.release(session, "k", purpose="seal").version == 2
    assert world.broker.release(session, "k", 1).version == 1
    with pytest.raises(ReleaseRefusedError, match="no version 3"):
        world.broker.release(session, "k", 3)


NAME, VERSION, PURPOSE = "is not a key name", "version is a whole number", "to seal or to unseal"


@pytest.mark.parametrize(
    ("name", "version", "purpose", "cause"),
    [
        ("../x", None, "seal", NAME),
        ("session/../x", None, "seal", NAME),
        ("K", None, "seal", NAME),
        ("x" * 10_000, None, "seal", NAME),
        ("k", 0, "unseal", VERSION),
        ("k", -1, "unseal", VERSION),
        ("k", 2**31, "unseal", VERSION),
        ("k", True, "unseal", VERSION),
        ("k", 1.0, "unseal", VERSION),
        ("k", "1", "unseal", VERSION),
        ("k", None, "export", PURPOSE),
        ("k", None, "", PURPOSE),
    ],
)
def test_a_malformed_request_is_refused_and_recorded(world, name, version, purpose, cause):
    world.keyring.create("k", guard="none")
    with pytest.raises(ReleaseRefusedError, match=cause):
        world.broker.release(world.attest(), name, version, purpose)
    assert [entry["decision"] for entry in world.events("release")] == ["refused"]


def test_a_release_that_cannot_be_recorded_does_not_happen(world):
    world.keyring.create("k", guard="own")
    session = world.attest()
    lines = world.audit.path.read_bytes()
    world.audit.path.write_bytes(lines[:-1])
    with pytest.raises(AuditError, match="nothing was released"):
        world.broker.release(session, "k")


def test_the_record_is_made_before_the_key_leaves(world, monkeypatch):
    world.keyring.create("k", guard="own")
    session = world.attest()
    recorded = []
    append = world.audit.append
    monkeypatch.setattr(
        world.audit, "append", lambda *a, **k: recorded.append(k["decision"]) or append(*a, **k)
    )
    key = world.broker.release(session, "k")
    assert key is not None
    assert recorded == ["released"]


# -- sessions ------------------------------------------------------------------------------------


def test_attack_50_a_closed_session_gets_nothing(world):
    world.keyring.create("k", guard="own")
    session = world.attest()
    world.broker.close_session(session)
    world.broker.close_session(session)
    for use in (
        lambda: world.broker.release(session, "k"),
        lambda: world.broker.release(session, "session/default"),
        lambda: world.broker.keys(session),
        lambda: world.broker.report(session, "sealed", {}),
    ):
        with pytest.raises(SessionEndedError, match="has ended"):
            use()
    assert len(world.events("close")) == 1


def test_attack_50_an_expired_session_gets_nothing(world):
    world.keyring.create("k", guard="none")
    session = world.attest()
    world.passes(hours=12, seconds=1)
    with pytest.raises(SessionEndedError, match="expired"):
        world.broker.release(session, "k")


def test_attack_50_a_session_of_a_broker_that_ended_gets_nothing(world):
    world.keyring.create("k", guard="own")
    session = world.attest()
    world.broker = world.new_broker()
    with pytest.raises(SessionEndedError):
        world.broker.release(session, "k")


def test_attack_50_the_evidence_of_a_closed_session_opens_no_other(world):
    nonce = world.broker.challenge()
    quote = world.quote(nonce)
    world.broker.close_session(world.attest(nonce=nonce, quote=quote))
    for replayed in (nonce, world.broker.challenge()):
        with pytest.raises(RefusedError):
            world.attest(nonce=replayed, quote=quote)


def test_a_session_ends_with_the_collateral_that_admitted_it(world):
    policy = world.add_policy("long", edit=with_release(ttl_seconds=300_000_000))
    session = world.attest(policy=policy)
    assert session.expires_at == session.result.collateral_expires_at


@pytest.mark.parametrize("minutes", [-10, 10])
def test_attack_52_with_a_clock_that_was_moved_nothing_is_decided(world, minutes):
    world.keyring.create("k", guard="none")
    session = world.attest()
    nonce = world.broker.challenge()
    world.moved += timedelta(minutes=minutes)
    for use in (
        lambda: world.broker.challenge(),
        lambda: world.attest(nonce=nonce),
        lambda: world.broker.keys(session),
        lambda: world.broker.report(session, "sealed", {}),
    ):
        with pytest.raises(ClockError):
            use()
    with pytest.raises(ReleaseRefusedError, match="clock"):
        world.broker.release(session, "k")
    assert world.events("release")[-1]["decision"] == "refused"


def test_attack_52_a_restart_with_the_clock_set_back_decides_nothing(world):
    world.attest()
    world.moved -= timedelta(hours=1)
    world.broker = world.new_broker()
    with pytest.raises(ClockError, match="behind the last entry"):
        world.broker.challenge()


def test_attack_52_a_broker_takes_the_last_time_from_its_audit_log(world):
    world.attest()
    world.moved -= timedelta(hours=1)
    with pytest.raises(ClockError, match="behind the last entry"):
        world.new_broker(clock=world.now).challenge()


# -- keys in the broker's memory -----------------------------------------------------------------


def test_a_session_key_is_made_at_first_use_and_stored_nowhere(world):
    session = world.attest()
    key = world.broker.release(session, "session/default", purpose="seal")
    assert world.broker.release(session, "session/default", 1).secret == key.secret
    assert world.keyring.list() == ()


def test_a_restarted_kernel_under_the_same_policy_gets_the_same_session_key(world):
    first = world.attest()
    key = world.broker.release(first, "session/default")
    world.broker.close_session(first)
    assert world.broker.release(world.attest(), "session/default").secret == key.secret


def test_session_keys_end_with_their_broker(world):
    key = world.broker.release(world.attest(), "session/default")
    world.broker = world.new_broker()
    session = world.attest()
    with pytest.raises(ReleaseRefusedError, match="lived in the memory"):
        world.broker.release(session, "session/default", 1)
    assert world.broker.release(session, "session/default").secret != key.secret


def both(text: str) -> str:
    """Edit a policy's text so that it admits both measurements."""
    one = MEASUREMENT.mrenclave.hex()
    assert text.count(f'["{one}"]') == 1
    return text.replace(f'["{one}"]', f'["{one}", "{OTHER_MEASUREMENT.mrenclave.hex()}"]')


def test_attack_48_a_kernel_under_a_laxer_policy_does_not_make_the_key_that_a_stricter_one_seals_with(world):
    lax = world.add_policy("lax", edit=both)
    strict_attester, world.attester = world.attester, world.platform.attester(OTHER_MEASUREMENT)
    evil = world.attest(policy=lax)
    squatted = world.broker.release(evil, "session/default", purpose="seal")
    world.attester = strict_attester
    good = world.attest()
    key = world.broker.release(good, "session/default", purpose="seal")
    assert key.secret != squatted.secret
    assert (squatted.version, key.version) == (1, 2)
    for session, version in ((evil, key.version), (good, squatted.version)):
        with pytest.raises(ReleaseRefusedError, match=f"no version {version} .* for kernels of the policy"):
            world.broker.release(session, "session/default", version)
    # Not even the strict kernel's own measurement opens it, attested under the laxer policy.
    with pytest.raises(ReleaseRefusedError, match="no version 2"):
        world.broker.release(world.attest(policy=lax), "session/default", 2)
    assert world.broker.release(good, "session/default", 2).secret == key.secret
    assert world.broker.release(evil, "session/default", 1).secret == squatted.secret
    assert world.broker.release(evil, "session/default").secret == squatted.secret


def test_attack_48_an_edited_policy_of_the_same_name_is_another_policy(world):
    key = world.broker.release(world.attest(), "session/default")
    edited = world.add_policy("own", edit=both)
    session = world.attest(policy=edited)
    with pytest.raises(ReleaseRefusedError, match="made under another policy"):
        world.broker.release(session, "session/default", key.version)
    assert world.broker.release(session, "session/default").secret != key.secret


def test_a_kernel_sees_the_session_keys_of_its_own_policy_and_their_versions(world):
    lax = world.add_policy("lax", edit=both)
    own, other = world.attest(), world.attest(policy=lax)
    world.broker.release(other, "session/default")
    world.broker.release(other, "session/theirs")

    def seen(session):
        return {record.name: record.current for record in world.broker.keys(session)}

    assert seen(other) == {"session/default": 1, "session/theirs": 1}
    assert seen(own) == {"session/default": 2}  # as it will be when it is made
    assert world.broker.release(own, "session/default").version == 2
    assert seen(own) == {"session/default": 2}
    assert seen(other) == {"session/default": 1, "session/theirs": 1}


def test_a_session_key_that_its_policy_does_not_grant_is_not_made_either(world):
    few = world.add_policy("few", keys=("team/data",))
    session = world.attest(policy=few)
    with pytest.raises(ReleaseRefusedError, match="does not grant"):
        world.broker.release(session, "session/default")
    assert world.broker.release(world.attest(), "session/default").version == 1


def test_kernels_of_one_policy_cannot_use_up_the_session_keys_of_another(world, monkeypatch):
    monkeypatch.setattr(broker_module, "_MAX_SESSION_KEYS", 1)
    lax = world.add_policy("lax", edit=both)
    world.broker.release(world.attest(policy=lax), "session/a")
    world.broker.release(world.attest(), "session/a")


def test_of_many_kernels_that_want_a_session_key_first_all_get_the_same(world):
    sessions = [world.attest() for _ in range(8)]
    gate = threading.Barrier(8)

    def release(session):
        gate.wait()
        key = world.broker.release(session, "session/default")
        return key.version, key.secret

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(release, sessions))) == 1


def test_a_session_key_has_one_version(world):
    session = world.attest()
    world.broker.release(session, "session/default")
    with pytest.raises(ReleaseRefusedError, match="no version 2"):
        world.broker.release(session, "session/default", 2)


def test_the_number_of_session_keys_is_bounded(world, monkeypatch):
    monkeypatch.setattr(broker_module, "_MAX_SESSION_KEYS", 2)
    session = world.attest()
    world.broker.release(session, "session/a")
    world.broker.release(session, "session/b")
    with pytest.raises(ReleaseRefusedError, match="limit"):
        world.broker.release(session, "session/c")
    world.broker.release(session, "session/a")


def test_session_keys_need_no_keyring(world, tmp_path, monkeypatch):
    monkeypatch.delenv("SEALBOOK_PASSPHRASE_FD", raising=False)
    monkeypatch.setattr("sealbook.broker.passphrase._claimed", None)
    path = tmp_path / "keyring"
    PassphraseFileStore(path, lambda: "a passphrase", work=1 << 14).change(
        lambda _: b'{"format":"sealbook keyring","keys":{},"version":1}'
    )
    world.keyring = Keyring(PassphraseFileStore(path, inherited))
    world.broker = world.new_broker()
    session = world.attest()
    world.broker.release(session, "session/default")
    assert [record.name for record in world.broker.keys(session)] == ["session/default"]
    with pytest.raises(ReleaseRefusedError, match="keyring is locked"):
        world.broker.release(session, "team/data")
    with pytest.raises(KeyringLockedError):
        world.keyring.list()


# -- what a kernel may see and say ---------------------------------------------------------------


def test_a_kernel_sees_the_keys_it_would_get_and_no_others(world):
    world.add_policy("strict", measurement=OTHER_MEASUREMENT)
    world.add_policy("few", keys=("other",))
    for name, guard in {"a": "own", "b": "strict", "c": "none", "d": "few", "e": "gone"}.items():
        world.keyring.create(name, guard=guard)
    session = world.attest()
    assert {record.name: record.guard for record in world.broker.keys(session)} == {
        "session/default": "session",
        "a": "own",
        "c": "none",
    }
    world.broker.release(session, "session/default")
    world.broker.release(session, "session/x")
    assert [record.name for record in world.broker.keys(session)] == [
        "session/default",
        "session/x",
        "a",
        "c",
    ]


def test_what_a_kernel_reports_is_recorded_as_its_word(world):
    session = world.attest()
    world.broker.report(session, "sealed", {"path": "x.sealed", "size": 3})
    (entry,) = world.events("artifact")
    assert (entry["decision"], entry["action"], entry["facts"]) == (
        "reported",
        "sealed",
        {"path": "x.sealed", "size": 3},
    )


def test_the_audit_log_of_a_whole_session_is_whole(world):
    world.keyring.create("k", guard="own")
    session = world.attest()
    world.broker.release(session, "k")
    with pytest.raises(ReleaseRefusedError):
        world.broker.release(session, "unknown")
    world.broker.close_session(session)
    assert world.audit.verify().ok
    assert [entry["event"] for entry in world.audit.entries()] == ["attest", "release", "release", "close"]


def test_the_broker_remembers_how_new_the_collateral_was(world, tmp_path):
    world.broker = world.new_broker(memory=CollateralMemory(tmp_path / "memory.json"))
    world.attest()
    assert (tmp_path / "memory.json").exists()


def test_a_measurement_that_is_not_admitted_is_refused(world):
    world.attester = world.platform.attester(Measurement(mrenclave=b"\x33" * 32))
    with pytest.raises(AttestationRefusedError, match="measurement"):
        world.attest()


def test_a_copy_of_a_session_is_no_session(world):
    session = world.attest()
    table = SessionTable()
    table.add(session, world.now())
    copy = replace(session, expires_at=session.expires_at + timedelta(days=1))
    with pytest.raises(SessionEndedError):
        table.require_live(copy, world.now())
    assert not table.close(copy)
    assert table.close(session)


def test_a_kernel_asking_for_an_unknown_key_does_not_learn_other_names(world):
    world.keyring.create("mine", guard="own")
    with pytest.raises(ReleaseRefusedError) as refused:
        world.broker.release(world.attest(), "yours")
    assert "mine" not in str(refused.value)
    assert not isinstance(refused.value, InputError)
