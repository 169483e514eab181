"""What a restart, a kill or a second process may not change: nonces count once, sessions go on."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker_service import CLUSTER, Served, served
from sealbook.attestation import SimulatedPlatform, StaleNonceError
from sealbook.broker.client import BrokerUnreachableError
from sealbook.broker.service.database import Database, StateError
from sealbook.broker.service.nonces import LONGEST, StoredNonces
from sealbook.broker.session import SessionEndedError
from sealbook.errors import InputError, RefusedError
from sealbook.sealing import KeyUnavailableError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = b"\x01" * 32


@pytest.fixture
def database(tmp_path) -> Database:
    return Database(tmp_path / "state" / "service.sqlite")


def nonces_in(path: Path, ttl: float = 60, key: bytes = KEY) -> StoredNonces:
    return StoredNonces(Database(path), key, ttl)


def test_a_nonce_counts_once_and_a_restart_does_not_change_that(tmp_path):
    path = tmp_path / "service.sqlite"
    used, unused = (nonces_in(path).issue(NOW) for _ in range(2))
    nonces_in(path).redeem(used, NOW)
    again = nonces_in(path)
    with pytest.raises(StaleNonceError, match="was used before"):
        again.redeem(used, NOW)
    again.redeem(unused, NOW)
    with pytest.raises(StaleNonceError):
        again.redeem(unused, NOW)


def test_a_nonce_that_is_too_old_is_used_up_by_the_attempt(tmp_path):
    nonces = nonces_in(tmp_path / "service.sqlite")
    nonce = nonces.issue(NOW)
    with pytest.raises(StaleNonceError, match="older than 60 seconds"):
        nonces.redeem(nonce, NOW + timedelta(seconds=61))
    with pytest.raises(StaleNonceError, match="was used before"):
        nonces.redeem(nonce, NOW)
    with pytest.raises(StaleNonceError, match="clock went back"):
        nonces.redeem(nonces.issue(NOW), NOW - timedelta(seconds=1))


@pytest.mark.parametrize("at", range(32))
def test_a_nonce_with_any_byte_changed_was_not_issued_here(tmp_path, at):
    nonces = nonces_in(tmp_path / "service.sqlite")
    nonce = nonces.issue(NOW)
    changed = nonce[:at] + bytes([nonce[at] ^ 1]) + nonce[at + 1 :]
    with pytest.raises(StaleNonceError, match="not issued here"):
        nonces.redeem(changed, NOW)
    nonces.redeem(nonce, NOW)


@pytest.mark.parametrize("nonce", [b"", b"\0" * 32, b"\0" * 16, b"\0" * 33])
def test_what_is_no_nonce_was_not_issued_here(tmp_path, nonce):
    with pytest.raises(StaleNonceError, match="not issued here"):
        nonces_in(tmp_path / "service.sqlite").redeem(nonce, NOW)


def test_a_nonce_of_another_broker_was_not_issued_here(tmp_path):
    nonce = nonces_in(tmp_path / "one.sqlite", key=b"\x02" * 32).issue(NOW)
    with pytest.raises(StaleNonceError, match="not issued here"):
        nonces_in(tmp_path / "two.sqlite").redeem(nonce, NOW)


def test_who_asks_for_many_challenges_takes_none_from_others_and_no_room(tmp_path):
    database = Database(tmp_path / "service.sqlite")
    nonces = StoredNonces(database, KEY, 60)
    honest = nonces.issue(NOW)
    for _ in range(10_000):
        nonces.issue(NOW)
    with database.transaction() as run:
        assert run.execute("SELECT count(*) FROM nonces").fetchone()[0] == 0
    nonces.redeem(honest, NOW)


def test_used_nonces_are_kept_as_long_as_any_policy_could_take_them(tmp_path):
    path = tmp_path / "service.sqlite"
    short, longest = nonces_in(path), nonces_in(path, LONGEST)
    nonce = short.issue(NOW)
    short.redeem(nonce, NOW)
    almost = NOW + timedelta(seconds=LONGEST - 1)
    short.redeem(short.issue(almost), almost)
    with pytest.raises(StaleNonceError, match="was used before"):
        longest.redeem(nonce, almost)
    later = NOW + timedelta(seconds=LONGEST + 1)
    short.redeem(short.issue(later), later)
    with Database(path).transaction() as run:
        assert run.execute("SELECT count(*) FROM nonces").fetchone()[0] == 2
    with pytest.raises(ValueError, match="at most 3600"):
        nonces_in(path, LONGEST + 1)


def _redeem(path: Path, nonces: list[bytes], start, results) -> None:
    ledger = nonces_in(path)
    start.wait()
    won = 0
    for nonce in nonces:
        try:
            ledger.redeem(nonce, NOW)
            won += 1
        except StaleNonceError:
            pass
    results.put(won)


def test_of_two_processes_that_redeem_the_same_nonces_each_gets_others(tmp_path):
    path = tmp_path / "service.sqlite"
    ledger = nonces_in(path)
    nonces = [ledger.issue(NOW) for _ in range(100)]
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_redeem, args=(path, nonces, start, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sum(results.get(timeout=60) for _ in workers) == 100
    for worker in workers:
        worker.join()


def test_of_many_requests_with_one_nonce_at_once_one_passes(tmp_path):
    with served(tmp_path) as broker:
        body = broker.attest_request()
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(broker.http("POST", "/v1/attest", body)[0]))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [200] + [409] * 7


@pytest.fixture
def world(tmp_path) -> Served:
    return Served(tmp_path, SimulatedPlatform.load_or_create(tmp_path / "platform"))


def test_after_a_restart_the_nodes_go_on_as_before(world):
    with world.running():
        enrolment = world.enrol()
        key = world.client().release(enrolment, "data", None, "seal")
        nonce, port, name = world.service.challenge(), world.server.port, world.service.name
        spent = world.attest_request()
        assert world.http("POST", "/v1/attest", spent)[0] == 200
    with pytest.raises(BrokerUnreachableError):
        world.client().members(enrolment)
    with world.running(port=port):
        assert world.service.name == name
        client = world.client()
        assert enrolment.session in {member.session for member in client.members(enrolment)}
        assert client.release(enrolment, "data", None, "seal").secret == key.secret
        renewed = client.renew(enrolment)
        assert client.release(renewed, "data", 1, "unseal").secret == key.secret
        body = world.attest_request(quoted={"nonce": nonce}, nonce=nonce)
        assert world.http("POST", "/v1/attest", body)[0] == 200, "a challenge outlives the restart"
        assert world.http("POST", "/v1/attest", spent)[0] == 409, "and a used one stays used"
    assert world.audit.verify().ok


def test_how_often_a_key_was_released_survives_a_restart(world):
    world.add_policy("nodes", edit=lambda text: text.replace("[release]", "[release]\nmax_uses = 2"))
    with world.running():
        enrolment = world.enrol()
        world.client().release(enrolment, "data", None, "seal")
    with world.running():
        world.client().release(enrolment, "data", None, "seal")
        with pytest.raises(KeyUnavailableError, match="2 times"):
            world.client().release(enrolment, "data", None, "seal")


def test_the_sessions_of_a_policy_are_limited_across_a_restart(world):
    world.add_policy("nodes", edit=lambda text: text.replace("[release]", "[release]\nmax_sessions = 2"))
    with world.running():
        world.enrol()
    with world.running():
        world.enrol()
        with pytest.raises(RefusedError, match="allows 2 sessions"):
            world.enrol()


def test_a_node_whose_session_expired_is_told_to_attest_again(world):
    world.add_policy("nodes", edit=lambda text: text.replace("ttl_seconds = 43200", "ttl_seconds = 2"))
    with world.running():
        enrolment = world.enrol()
        assert enrolment.expires <= datetime.now(UTC) + timedelta(seconds=2), "not beyond the session"
        with world.client()._connect(enrolment) as connection:
            import time

            time.sleep(2.1)
            with pytest.raises(SessionEndedError):
                connection.ask("POST", "/v1/renew", {})


def test_the_state_is_the_owners_alone(world):
    with world.running():
        world.enrol()
        for path in (world.directory / "broker").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((world.directory / "broker").stat().st_mode) == 0o700


def test_state_that_is_none_or_of_another_version_is_one_sentence(tmp_path):
    path = tmp_path / "service.sqlite"
    path.write_bytes(b"this is not a database" * 1000)
    with pytest.raises(InputError, match="cannot be used"):
        Database(path)
    path.unlink()
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="of a version that is not known"):
        Database(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot be used"):
        Database(path)


def test_a_transaction_that_fails_leaves_nothing(database):
    with pytest.raises(ZeroDivisionError), database.transaction() as run:
        run.execute("INSERT INTO nonces VALUES (?, 0)", (b"x",))
        raise ZeroDivisionError
    with database.transaction() as run:
        assert run.execute("SELECT count(*) FROM nonces").fetchone()[0] == 0
    with pytest.raises(StateError, match="nothing was decided"), database.transaction() as run:
        run.execute("INSERT INTO nowhere VALUES (1)")


_SERVE = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from broker_service import Served
from sealbook.attestation import SimulatedPlatform
from sealbook.broker import Keyring
from sealbook.broker.stores import PassphraseFileStore
from sealbook.broker.service.server import BrokerServer
directory = Path({directory!r})
store = PassphraseFileStore(directory / "keyring", lambda: "correct horse", work=1 << 14)
platform = SimulatedPlatform.load_or_create(directory / "platform")
world = Served(directory, platform, keyring=Keyring(store))
server = BrokerServer(world.new_service(), port={port})
def ready():
    print(server.port, flush=True)
server.run(ready)
"""


class Killable:
    """A service in a process of its own, on a keyring that lasts."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        code = _SERVE.format(tests=str(Path(__file__).parents[1]), directory=str(directory), port=port)
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def test_a_kill_in_the_middle_of_many_requests_loses_nothing_and_releases_nothing_twice(tmp_path):
    from sealbook.broker import Keyring
    from sealbook.broker.certificates import Authority
    from sealbook.broker.client import BrokerClient
    from sealbook.broker.stores import PassphraseFileStore

    platform = SimulatedPlatform.load_or_create(tmp_path / "platform")
    keyring = Keyring(PassphraseFileStore(tmp_path / "keyring", lambda: "correct horse", work=1 << 14))
    broker = Killable(tmp_path)
    ca = Authority(keyring.reserved("broker-ca")).pem
    client = BrokerClient(f"https://127.0.0.1:{broker.port}", ca)
    world = Served(tmp_path, platform, keyring=keyring)
    enrolments = []
    stop = threading.Event()

    def enrol_for_ever() -> None:
        while not stop.is_set():
            try:
                enrolments.append(
                    client.enrol(
                        world.attester(), role="spark-executor", cluster=CLUSTER, hosts=["localhost"]
                    )
                )
            except RefusedError:
                stop.wait(0.05)

    threads = [threading.Thread(target=enrol_for_ever) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = len(enrolments)
        while len(enrolments) < before + 5:
            stop.wait(0.01)
        broker.kill()
        broker = Killable(tmp_path, broker.port)
    stop.set()
    for thread in threads:
        thread.join()
    try:
        for enrolment in enrolments:  # whoever was told that it is in, is in
            assert client.renew(enrolment).session == enrolment.session
        members = {member.session for member in client.members(enrolments[0])}
        assert {enrolment.session for enrolment in enrolments} <= members
    finally:
        broker.kill()
    assert world.audit.verify().ok
    accepted = [entry["evidence"] for entry in world.events("attest") if entry["decision"] == "accepted"]
    assert len(accepted) == len(set(accepted)), "no piece of evidence was accepted twice"


def test_the_embedded_broker_and_the_service_share_keyring_and_log(world, tmp_path):
    """As in a Jupyter server beside `sealbook broker serve`: both append, and the chain stays whole."""
    from sealbook.attestation import ROLE_KERNEL, report_data
    from sealbook.broker import AuditLog, Broker

    with world.running():
        embedded = Broker(
            world.keyring,
            AuditLog(tmp_path / "audit.jsonl"),
            world.platform.source(),
            policy_loader=world.load_policy,
        )
        enrolment = world.enrol()
        failures = []

        def release_here() -> None:
            try:
                for _ in range(10):
                    nonce = embedded.challenge(world.policies["nodes"])
                    bound = {"role": ROLE_KERNEL, "audience": "here", "claims": {"k": b"x"}}
                    quote = world.attester().quote(report_data(nonce=nonce, **bound))
                    session = embedded.attest(quote, nonce=nonce, policy=world.policies["nodes"], **bound)
                    embedded.release(session, "data")
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=release_here)
        thread.start()
        for _ in range(10):
            world.client().release(enrolment, "data", None, "seal")
        thread.join()
    assert not failures
    assert world.audit.verify().ok
