"""The keyring under a key in a PKCS#11 token, on SoftHSM (Debian: softhsm2)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sealbook.broker.keyring import Keyring, open_keyring
from sealbook.broker.pkcs11 import KEY_LABEL, TokenSettings, TokenStore, _bind_to_its_own, token_settings
from sealbook.broker.stores import UnlockError
from sealbook.errors import InputError
from sealbook.sealing import KeyUnavailableError

PIN = "4711-0815"

_PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
_MODULE = next((Path(each) for each in _PLACES if Path(each).exists()), None)

needs_softhsm = pytest.mark.skipif(
    _MODULE is None or shutil.which("softhsm2-util") is None, reason="SoftHSM is not installed (softhsm2)"
)


@pytest.fixture(scope="module")
def token(tmp_path_factory) -> TokenSettings:
    """A token of this module's own. SoftHSM reads its configuration once in a process."""
    directory = tmp_path_factory.mktemp("token")
    (directory / "tokens").mkdir()
    (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory}/tokens\n")
    os.environ["SOFTHSM2_CONF"] = str(directory / "softhsm2.conf")
    for label in ("first", "second", "extractable", "not sensitive"):
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN],
            check=True,
            capture_output=True,
        )
    assert _MODULE is not None
    # As the store does it first: else the tests that use python-pkcs11 by themselves end a worker that has
    # loaded TensorFlow before.
    _bind_to_its_own(_MODULE)
    yield TokenSettings(_MODULE, "first")
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture
def store(token, tmp_path) -> TokenStore:
    return TokenStore(tmp_path / "keyring.token", token, lambda: PIN)


@needs_softhsm
def test_keys_last_and_neither_their_secrets_nor_the_pin_lie_in_the_file(store, token, tmp_path):
    keyring = Keyring(store)
    keyring.create("study", guard="none")
    keyring.rotate("study")
    secret = keyring.key("study", 2).secret
    again = Keyring(TokenStore(tmp_path / "keyring.token", token, lambda: PIN))
    assert again.key("study", 2).secret == secret
    content = (tmp_path / "keyring.token").read_bytes()
    assert b"study" not in content
    assert PIN.encode() not in content
    assert (tmp_path / "keyring.token").stat().st_mode & 0o777 == 0o600


@needs_softhsm
def test_the_key_does_not_leave_the_token(store, token):
    import pkcs11

    Keyring(store).create("study", guard="none")
    with pkcs11.lib(str(token.module)).get_token(token_label="first").open(user_pin=PIN) as session:
        key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=KEY_LABEL)
        assert key[pkcs11.Attribute.EXTRACTABLE] is False
        assert key[pkcs11.Attribute.SENSITIVE] is True
        assert key[pkcs11.Attribute.MODIFIABLE] is False
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


@needs_softhsm
@pytest.mark.parametrize("label", ["extractable", "not sensitive"])
def test_a_key_that_can_be_read_out_of_the_token_is_not_used(token, tmp_path, label):
    import pkcs11

    own = TokenSettings(token.module, label)
    with pkcs11.lib(str(token.module)).get_token(token_label=label).open(rw=True, user_pin=PIN) as session:
        kinds = {
            pkcs11.Attribute.EXTRACTABLE: label == "extractable",
            pkcs11.Attribute.SENSITIVE: label != "not sensitive",
        }
        session.generate_key(pkcs11.KeyType.AES, 256, label=KEY_LABEL, store=True, template=kinds)
    with pytest.raises(InputError, match="can be read out of it"):
        Keyring(TokenStore(tmp_path / "keyring", own, lambda: PIN)).create("study", guard="none")
    assert not (tmp_path / "keyring").exists()


@needs_softhsm
def test_every_flipped_bit_of_the_file_is_refused(store, tmp_path):
    Keyring(store).create("study", guard="none")
    path = tmp_path / "keyring.token"
    good = json.loads(path.read_bytes())
    for field in ("nonce", "ciphertext"):
        flipped = dict(good)
        first = "B" if good[field][0] != "B" else "C"
        flipped[field] = first + good[field][1:]
        path.write_text(json.dumps(flipped, sort_keys=True, separators=(",", ":")) + "\n")
        with pytest.raises(UnlockError, match="was changed"):
            store.read()
    for field, value in (("version", 2), ("token", "second"), ("format", "x"), ("extra", 1)):
        path.write_text(json.dumps(good | {field: value}, sort_keys=True, separators=(",", ":")) + "\n")
        with pytest.raises(InputError, match="is not a keyring file"):
            store.read()


@needs_softhsm
def test_it_opens_in_a_process_that_has_tensorflow(store, token, tmp_path):
    Keyring(store).create("study", guard="none")
    code = (
        "import tensorflow\n"
        "from pathlib import Path\n"
        "from sealbook.broker.keyring import Keyring\n"
        "from sealbook.broker.pkcs11 import TokenSettings, TokenStore\n"
        f"settings = TokenSettings(Path({str(token.module)!r}), 'first')\n"
        f"store = TokenStore(Path({str(tmp_path / 'keyring.token')!r}), settings, lambda: {PIN!r})\n"
        "print(Keyring(store).record('study').current)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout == "1\n"


@needs_softhsm
def test_another_token_does_not_open_it(store, token, tmp_path):
    Keyring(store).create("study", guard="none")
    path = tmp_path / "keyring.token"
    path.write_text(path.read_text().replace('"first"', '"second"'))
    other = TokenStore(path, TokenSettings(token.module, "second"), lambda: PIN)
    with pytest.raises(UnlockError, match="does not have the key it was made with"):
        other.read()
    Keyring(TokenStore(tmp_path / "of-second", TokenSettings(token.module, "second"), lambda: PIN)).create(
        "x", guard="none"
    )
    with pytest.raises(UnlockError, match="the token is another one"):
        other.read()


@needs_softhsm
def test_a_wrong_pin_is_one_sentence_without_the_pin_and_the_right_one_works_after_it(store, token, tmp_path):
    Keyring(store).create("study", guard="none")
    pins = iter(["wrong-wrong", PIN])
    asking = TokenStore(tmp_path / "keyring.token", token, lambda: next(pins))
    with pytest.raises(UnlockError, match=r"^The PIN of the token 'first' is wrong\.$"):
        asking.read()
    assert Keyring(asking).record("study").current == 1


@needs_softhsm
def test_a_missing_token_is_one_sentence(token, tmp_path):
    with pytest.raises(InputError, match="There is no token 'nobody'"):
        Keyring(TokenStore(tmp_path / "k", TokenSettings(token.module, "nobody"), lambda: PIN)).create(
            "x", guard="none"
        )
    assert not (tmp_path / "k").exists()


def test_a_missing_library_is_one_sentence_and_the_pin_is_not_asked_for(tmp_path):
    store = TokenStore(
        tmp_path / "k", TokenSettings(tmp_path / "absent.so", "first"), lambda: pytest.fail("asked")
    )
    with pytest.raises(InputError, match="cannot be loaded"):
        Keyring(store).create("x", guard="none")


@needs_softhsm
def test_the_settings_choose_the_token_and_the_pin_comes_as_a_passphrase_does(token, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[keyring]\npkcs11_module = "{token.module}"\ntoken = "first"\n')
    reader, writer = os.pipe()
    os.write(writer, PIN.encode())
    os.close(writer)
    environment = os.environ | {"SEALBOOK_HOME": str(home), "SEALBOOK_PASSPHRASE_FD": str(reader)}
    command = [sys.executable, "-m", "sealbook", "keys", "create", "study", "--guard", "none"]
    subprocess.run(command, env=environment, pass_fds=[reader], check=True, capture_output=True)
    os.close(reader)
    assert (home / "keyring.token").exists()
    assert not (home / "keyring.sealbook").exists()


def test_without_settings_there_is_no_token(tmp_path):
    assert token_settings(tmp_path / "config.toml") is None
    (tmp_path / "config.toml").write_text('[pccs]\nurl = "https://x"\n')
    assert token_settings(tmp_path / "config.toml") is None


@pytest.mark.parametrize(
    "table",
    [
        'token = "x"',
        'pkcs11_module = "/x.so"',
        'pkcs11_module = "x.so"\ntoken = "x"',
        'pkcs11_module = "/x.so"\ntoken = ""',
        'pkcs11_module = "/x.so"\ntoken = "' + "x" * 33 + '"',
        'pkcs11_module = "/x.so"\ntoken = "x"\npin = "1234"',
        'pkcs11_module = "/x.so"\ntoken = 1',
    ],
)
def test_settings_that_name_no_token_are_refused(tmp_path, table):
    (tmp_path / "config.toml").write_text(f"[keyring]\n{table}\n")
    with pytest.raises(InputError, match="exactly two settings"):
        token_settings(tmp_path / "config.toml")


def test_settings_of_a_token_do_not_disturb_those_of_collateral(tmp_path):
    from sealbook.attestation.pccs.settings import configured_service

    (tmp_path / "config.toml").write_text('[keyring]\npkcs11_module = "/x.so"\ntoken = "x"\n')
    assert (
        configured_service(environment={}, root=tmp_path, config=tmp_path / "config.toml").origin
        == "built in"
    )


def test_a_key_in_a_token_is_not_looked_for_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('[keyring]\npkcs11_module = "/absent.so"\ntoken = "x"\n')
    Keyring(open_keyring(passphrase=lambda: "correct horse").store)
    with pytest.raises(KeyUnavailableError):
        open_keyring().find("anything")
