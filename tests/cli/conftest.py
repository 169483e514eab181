from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from sealbook.broker import passphrase as passphrases
from sealbook.cli import main

PASSPHRASE = "correct horse battery"


class ServiceStandIn(keyring.backend.KeyringBackend):
    """Stands in for the desktop's keyring service, which needs a desktop."""

    priority = 5
    name = "stand-in"

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service, username):
        return self.entries.get((service, username))

    def set_password(self, service, username, password):
        self.entries[service, username] = password


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A user's directory of their own, an empty keyring service, and an empty working directory."""
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(passphrases.DESCRIPTOR_VARIABLE, raising=False)
    monkeypatch.setattr(passphrases, "_claimed", None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    keyring.set_keyring(ServiceStandIn())
    yield tmp_path / "home"
    keyring.set_keyring(keyring.backends.fail.Keyring())


@pytest.fixture
def run(home, capfd):
    """Run a command in this process, through the function that the console script calls."""

    def run(*arguments: object, status: int | None = 0) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        outcome = Outcome(end.value.code, captured.out, captured.err)
        assert status in (None, outcome.status), outcome
        return outcome

    return run


def run_process(*arguments: object, passphrase: str | None = None, **options) -> Outcome:
    """Run the command as a process of its own, without a terminal."""
    environment = dict(os.environ) | options.pop("environment", {})
    descriptors = []
    if passphrase is not None:
        reader, environment[passphrases.DESCRIPTOR_VARIABLE] = passphrases.hand_over(passphrase)
        descriptors = [reader]
    done = subprocess.run(
        [sys.executable, "-m", "sealbook", *map(str, arguments)],
        env=environment,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        **options,
    )
    for descriptor in descriptors:
        os.close(descriptor)
    return Outcome(done.returncode, done.stdout, done.stderr)
