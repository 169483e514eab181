"""Sessions for these tests: one attested over a real broker, one unattested."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealbook import session
from sealbook.broker import Keyring, MemoryStore

sys.path.insert(0, str(Path(__file__).parents[1]))
from brokered import Brokered, attached


@pytest.fixture
def brokered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokered]:
    with attached(tmp_path_factory.mktemp("user")) as opened:
        yield opened


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    """The keyring of a user whose process is not attested: `open` needs no attestation, `guarded` does."""
    keyring = Keyring(MemoryStore())
    keyring.create("open", guard="none")
    keyring.create("guarded", guard="kernel")
    monkeypatch.delenv(session.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(session, "_current", session.UnattestedSession(lambda: keyring))
    yield keyring
    session.detach()
