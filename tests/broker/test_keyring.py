from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import keyring.errors
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealbook import paths
from sealbook.broker import (
    Keyring,
    KeyringLockedError,
    MemoryStore,
    PassphraseFileStore,
    SystemKeyringStore,
    UnlockError,
    open_keyring,
)
from sealbook.broker import passphrase as passphrases
from sealbook.encoding import canonical_json
from sealbook.errors import InputError
from sealbook.sealing import KeyUnavailableError

PASSPHRASE = "correct horse battery"
#: The least work the store takes, so that tests are quick.
WORK = 1 << 14


class ServiceStandIn(keyring.backend.KeyringBackend):
    """Stands in for the desktop's keyring service, which needs a desktop."""

    priority = 5
    name = "stand-in"

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service, username):
        if self.locked:
            raise keyring.errors.KeyringLocked("no")
        return self.entries.get((service, username))

    def set_password(self, service, username, password):
        if self.locked:
            raise keyring.errors.KeyringLocked("no")
        self.entries[service, username] = password


def file_store(path: Path, passphrase: str = PASSPHRASE) -> PassphraseFileStore:
    return PassphraseFileStore(path, lambda: passphrase, work=WORK)


@pytest.fixture(params=["memory", "file", "service"])
def ring(request, tmp_path):
    match request.param:
        case "memory":
            return Keyring(MemoryStore())
        case "file":
            return Keyring(file_store(tmp_path / "keyring"))
        case _:
            return Keyring(SystemKeyringStore(tmp_path / "lock", ServiceStandIn()))


def test_a_created_key_is_listed_and_has_32_random_bytes(ring):
    ring.create("team/data", guard="none", description="the team's")
    ring.create("other", guard="simulated")
    assert [(r.name, r.guard, r.current) for r in ring.list()] == [
        ("other", "simulated", 1),
        ("team/data", "none", 1),
    ]
    key = ring.key("team/data")
    assert (key.name, key.version, len(key.secret)) == ("team/data", 1, 32)
    assert key.secret != ring.key("other").secret


def test_rotation_adds_a_version_and_keeps_the_old_ones(ring):
    ring.create("k", guard="none")
    first = ring.key("k")
    assert ring.rotate("k").current == 2
    assert ring.key("k").version == 2
    assert ring.key("k").secret != first.secret
    assert ring.key("k", 1).secret == first.secret
    with pytest.raises(KeyUnavailableError, match="no version 3"):
        ring.key("k", 3)
    with pytest.raises(KeyUnavailableError, match="no version 0"):
        ring.key("k", 0)


def test_a_guard_can_be_changed_and_a_key_deleted(ring):
    ring.create("k", guard="none")
    secret = ring.key("k").secret
    assert ring.set_guard("k", "strict").guard == "strict"
    assert ring.key("k").secret == secret
    ring.delete("k")
    assert ring.list() == ()
    with pytest.raises(KeyUnavailableError):
        ring.key("k")


@pytest.mark.parametrize("name", ["", "A", "a/b/c", "../x", "a b", "session/default", "x" * 65])
def test_a_bad_key_name_is_refused(name):
    with pytest.raises(InputError):
        Keyring(MemoryStore()).create(name, guard="none")


@pytest.mark.parametrize("guard", ["", "../x", "a/b", "a b", "/x\n"])
def test_a_guard_that_names_no_policy_is_refused(guard):
    ring = Keyring(MemoryStore())
    with pytest.raises(InputError, match="names no policy"):
        ring.create("k", guard=guard)
    ring.create("k", guard="none")
    with pytest.raises(InputError, match="names no policy"):
        ring.set_guard("k", guard)


@pytest.mark.parametrize("description", ["x" * 201, "a\nb", "\x1b[2J"])
def test_a_description_is_one_short_line(description):
    with pytest.raises(InputError, match="description"):
        Keyring(MemoryStore()).create("k", guard="none", description=description)


def test_a_name_that_is_taken_is_refused_and_the_key_stays(ring):
    ring.create("k", guard="none")
    secret = ring.key("k").secret
    with pytest.raises(InputError, match="already"):
        ring.create("k", guard="none")
    assert ring.key("k").secret == secret


@pytest.mark.parametrize("what", ["rotate", "delete", "record"])
def test_an_unknown_key_is_refused_with_the_names_there_are(ring, what):
    ring.create("mine", guard="none")
    with pytest.raises(InputError, match=r"no key 'yours'.*mine"):
        getattr(ring, what)("yours")
    assert len(ring.list()) == 1


def test_an_enclave_asking_for_an_unknown_key_does_not_learn_other_names(ring):
    ring.create("mine", guard="none")
    with pytest.raises(KeyUnavailableError) as refused:
        ring.find("yours")
    assert "mine" not in str(refused.value)


def test_nothing_shown_of_a_key_contains_its_secret(ring):
    ring.create("k", guard="none")
    found = ring.find("k")
    secret = found.secrets[0]
    shown = " ".join(
        map(repr, [ring, ring.list(), found, found.version(), ring.store, found.record.to_dict()])
    )
    assert repr(secret)[2:-1] not in shown
    assert secret.hex() not in shown


# -- the passphrase-protected file ---------------------------------------------------------------


def test_the_file_is_private_and_holds_no_name_and_no_secret_in_clear(tmp_path):
    ring = Keyring(file_store(tmp_path / "keyring"))
    ring.create("team/data", guard="none")
    content = (tmp_path / "keyring").read_bytes()
    assert stat.S_IMODE((tmp_path / "keyring").stat().st_mode) == 0o600
    assert b"team" not in content
    assert ring.key("team/data").secret not in content
    assert PASSPHRASE.encode() not in content


def test_another_process_opens_the_file_with_the_passphrase(tmp_path):
    Keyring(file_store(tmp_path / "keyring")).create("k", guard="none")
    again = Keyring(file_store(tmp_path / "keyring"))
    assert [record.name for record in again.list()] == ["k"]


def test_a_wrong_passphrase_opens_nothing_and_changes_nothing(tmp_path):
    Keyring(file_store(tmp_path / "keyring")).create("k", guard="none")
    before = (tmp_path / "keyring").read_bytes()
    wrong = Keyring(file_store(tmp_path / "keyring", "wrong passphrase"))
    with pytest.raises(UnlockError):
        wrong.list()
    with pytest.raises(UnlockError):
        wrong.create("other", guard="none")
    assert (tmp_path / "keyring").read_bytes() == before


def test_every_single_bit_flip_in_the_file_is_refused(tmp_path):
    path = tmp_path / "keyring"
    store = file_store(path)
    Keyring(store).create("k", guard="none")
    whole = path.read_bytes()
    salt = whole.index(b'"salt":"') + len(b'"salt":"')
    for position in range(len(whole)):
        # Another salt costs a derivation; one flip in each of its characters but all in the last.
        for bit in range(1) if salt <= position < salt + 21 else range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            # The store that knows the derived key: no scrypt for each, the same checks.
            with pytest.raises((InputError, UnlockError)):
                Keyring(store).list()
    path.write_bytes(whole)
    assert len(Keyring(store).list()) == 1


@pytest.mark.parametrize("description", ["", "x", "xx"])
def test_a_flip_in_the_spare_bits_of_base64_is_refused(tmp_path, description):
    path = tmp_path / "keyring"
    store = file_store(path)
    Keyring(store).create("k", guard="none", description=description)
    body = json.loads(path.read_text())
    text = body["ciphertext"].rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for spare in (1, 2, 4, 8):
        last = alphabet[alphabet.index(text[-1]) ^ spare]
        changed = body | {"ciphertext": text[:-1] + last + "=" * (-len(text) % 4)}
        path.write_bytes(canonical_json(changed) + b"\n")
        with pytest.raises(UnlockError):
            Keyring(store).list()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_a_file_that_is_no_keyring_is_refused(tmp_path, content):
    path = tmp_path / "keyring"
    path.write_bytes(content)
    with pytest.raises(InputError):
        Keyring(file_store(path)).list()
    with pytest.raises(InputError):
        Keyring(file_store(path)).create("k", guard="none")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "value"), [("n", 1 << 10), ("n", 1 << 30), ("n", 3 << 14), ("p", 2), ("r", 9)]
)
def test_a_planted_file_can_neither_weaken_nor_exhaust_the_derivation(tmp_path, name, value):
    path = tmp_path / "keyring"
    Keyring(file_store(path)).create("k", guard="none")
    path.write_bytes(canonical_json(json.loads(path.read_text()) | {name: value}) + b"\n")

    def never() -> str:
        raise AssertionError("asked for the passphrase")

    with pytest.raises(InputError, match="not a sealbook keyring file"):
        Keyring(PassphraseFileStore(path, never)).list()


@pytest.mark.parametrize(
    "change", [(b'"n":', b'"n": '), (b"\n", b"\n\n"), (b"\n", b""), (b'"r":8', b'"r":8.0')]
)
def test_a_file_that_says_the_same_in_other_words_is_refused(tmp_path, change):
    path = tmp_path / "keyring"
    Keyring(file_store(path)).create("k", guard="none")
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(InputError, match="not a sealbook keyring file"):
        Keyring(file_store(path)).list()


def test_a_short_passphrase_makes_no_new_file(tmp_path):
    with pytest.raises(InputError, match="too short"):
        Keyring(file_store(tmp_path / "keyring", "1234567")).create("k", guard="none")
    assert not (tmp_path / "keyring").exists()


def test_the_passphrase_is_asked_for_once_and_only_when_needed(tmp_path):
    asked = []
    store = PassphraseFileStore(tmp_path / "keyring", lambda: asked.append(1) or PASSPHRASE, work=WORK)
    ring = Keyring(store)
    assert ring.list() == ()
    assert not asked
    ring.create("a", guard="none")
    ring.create("b", guard="none")
    ring.key("a")
    assert asked == [1]


def test_each_writing_uses_another_nonce(tmp_path):
    ring = Keyring(file_store(tmp_path / "keyring"))
    nonces = set()
    for number in range(3):
        ring.create(f"k{number}", guard="none")
        nonces.add(json.loads((tmp_path / "keyring").read_text())["nonce"])
    assert len(nonces) == 3


def _create(path: Path, name: str) -> None:
    Keyring(file_store(path)).create(name, guard="none")


def test_keys_made_by_processes_at_the_same_time_are_all_kept(tmp_path):
    _create(tmp_path / "keyring", "first")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_create, args=(tmp_path / "keyring", f"k{n}")) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(Keyring(file_store(tmp_path / "keyring")).list()) == 7


def test_keys_made_by_threads_at_the_same_time_are_all_kept(ring):
    threads = [
        threading.Thread(target=ring.create, args=(f"k{n}",), kwargs={"guard": "none"}) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ring.list()) == 8


# -- which store ---------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(passphrases, "_claimed", None)
    monkeypatch.delenv(passphrases.DESCRIPTOR_VARIABLE, raising=False)
    yield tmp_path / "home"
    keyring.set_keyring(keyring.backends.fail.Keyring())


def test_the_system_keyring_is_used_where_there_is_one(home):
    keyring.set_keyring(ServiceStandIn())
    ring = open_keyring()
    ring.create("k", guard="none")
    assert isinstance(ring.store, SystemKeyringStore)
    assert [r.name for r in open_keyring().list()] == ["k"]
    assert not paths.keyring_file().exists()


@pytest.mark.parametrize(
    "backend", [keyring.backends.fail.Keyring, keyring.backends.null.Keyring], ids=["fail", "null"]
)
def test_a_backend_that_keeps_nothing_is_not_used(home, backend):
    keyring.set_keyring(backend())
    assert isinstance(open_keyring().store, PassphraseFileStore)


def test_a_backend_that_writes_plain_text_is_not_used(home):
    plain = ServiceStandIn()
    type(plain).priority = 0.5
    try:
        assert not SystemKeyringStore.is_real(plain)
    finally:
        type(plain).priority = 5


def test_an_existing_keyring_file_stays_in_use(home):
    home.mkdir()
    _create(paths.keyring_file(), "k")
    keyring.set_keyring(ServiceStandIn())
    assert [r.name for r in open_keyring(passphrase=lambda: PASSPHRASE).list()] == ["k"]


def test_a_locked_system_keyring_is_a_sentence(home):
    service = ServiceStandIn()
    keyring.set_keyring(service)
    service.locked = True
    with pytest.raises(UnlockError, match="system keyring did not answer"):
        open_keyring().list()


# -- the passphrase's way ------------------------------------------------------------------------


def test_the_passphrase_comes_through_an_inherited_pipe_once_and_leaves_no_trace(home, monkeypatch):
    reader, value = passphrases.hand_over(PASSPHRASE)
    monkeypatch.setenv(passphrases.DESCRIPTOR_VARIABLE, value)
    assert passphrases.inherited() == PASSPHRASE
    assert passphrases.DESCRIPTOR_VARIABLE not in os.environ
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
    assert passphrases.inherited() == PASSPHRASE


def test_without_a_pipe_the_keyring_is_locked(home):
    with pytest.raises(KeyringLockedError, match="sealbook lab"):
        passphrases.inherited()


def test_a_child_gets_the_passphrase_through_the_pipe_and_not_through_argv_or_environment(home):
    reader, value = passphrases.hand_over(PASSPHRASE)
    code = (
        "import os, sys; from sealbook.broker import passphrase as p; "
        "seen = open('/proc/self/environ').read() + open('/proc/self/cmdline').read(); "
        "print(p.inherited() not in seen, len(p.inherited()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {passphrases.DESCRIPTOR_VARIABLE: value},
        pass_fds=[reader],
        capture_output=True,
        text=True,
    )
    os.close(reader)
    assert done.stdout == f"True {len(PASSPHRASE)}\n", done.stderr


@pytest.mark.parametrize("value", ["", "x", "-1", "0", "2", "99999", "3:x", "3:1:1"])
def test_a_descriptor_that_is_none_is_refused(home, monkeypatch, value):
    monkeypatch.setenv(passphrases.DESCRIPTOR_VARIABLE, value)
    with pytest.raises(InputError, match="pipe"):
        passphrases.inherited()


def test_standard_input_is_not_taken_for_the_passphrase_pipe(home):
    code = (
        "import sys; from sealbook.broker import passphrase as p\n"
        "try: p.inherited()\n"
        "except p.InputError as e: print(e, sys.stdin.read())"
    )
    environment = os.environ | {passphrases.DESCRIPTOR_VARIABLE: "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], input="the data", env=environment, capture_output=True, text=True
    )
    assert "does not name a readable pipe" in done.stdout, done
    assert "the data" in done.stdout


def test_a_grandchild_whose_descriptor_is_another_pipe_reads_nothing_from_it(home, monkeypatch):
    reader, writer = os.pipe()
    os.write(writer, b"somebody else's bytes")
    monkeypatch.setenv(passphrases.DESCRIPTOR_VARIABLE, f"{reader}:{os.fstat(reader).st_ino + 1}")
    with pytest.raises(InputError, match="pipe"):
        passphrases.inherited()
    assert os.read(reader, 100) == b"somebody else's bytes"
    os.close(reader)
    os.close(writer)


def test_a_passphrase_in_a_file_is_refused(home, tmp_path, monkeypatch):
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    with open(tmp_path / "passphrase") as file:
        monkeypatch.setenv(passphrases.DESCRIPTOR_VARIABLE, str(file.fileno()))
        with pytest.raises(InputError, match="pipe"):
            passphrases.inherited()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 2000])
def test_a_pipe_without_a_passphrase_is_refused(home, monkeypatch, content):
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    monkeypatch.setenv(passphrases.DESCRIPTOR_VARIABLE, str(reader))
    with pytest.raises(InputError, match="pipe"):
        passphrases.inherited()
    with contextlib.suppress(OSError):
        os.close(reader)


def test_without_a_terminal_nobody_is_asked_and_stdin_is_not_read(home):
    code = (
        "from sealbook.broker import passphrase as p\n"
        "try: p.interactive()()\n"
        "except p.KeyringLockedError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="something\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != passphrases.DESCRIPTOR_VARIABLE},
    )
    assert "no terminal" in done.stdout, done.stderr
