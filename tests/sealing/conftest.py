"""What the sealing tests share: keys, a small sealed file, and slots forged with the data key at hand."""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealbook.encoding import canonical_json
from sealbook.sealing import InMemoryKeys, SealedReader, SealedWriter, set_default_keys
from sealbook.sealing.envelope import header_mac_key
from sealbook.sealing.header import HEADER, SLOT, OpenedHeader, open_header

PLAIN = bytes(range(256)) + b"the end"


@pytest.fixture
def keys() -> InMemoryKeys:
    """Two keys, team/data and other."""
    keys = InMemoryKeys()
    keys.create("team/data")
    keys.create("other")
    return keys


@pytest.fixture
def no_default_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No default provider is set; whatever another module set is back afterwards."""
    monkeypatch.setattr("sealbook.sealing.keys._default", None)


@pytest.fixture
def default_keys(keys: InMemoryKeys, no_default_keys: None) -> InMemoryKeys:
    set_default_keys(lambda: keys, key=lambda: "team/data")
    return keys


@pytest.fixture
def make(keys: InMemoryKeys) -> Callable[..., bytes]:
    """Return the bytes of a sealed file."""

    def make(plain: bytes = PLAIN, **options: Any) -> bytes:
        out = io.BytesIO()
        with SealedWriter(
            out, **({"key": "team/data", "keys": keys, "context": {"study": "A"}} | options)
        ) as file:
            file.write(plain)
        return out.getvalue()

    return make


@pytest.fixture
def read(keys: InMemoryKeys) -> Callable[..., bytes]:
    """Unseal bytes."""

    def read(sealed: bytes, **options: Any) -> bytes:
        with SealedReader(io.BytesIO(sealed), **({"keys": keys} | options)) as file:
            return file.read()

    return read


@pytest.fixture
def opened(keys: InMemoryKeys) -> Callable[[bytes], OpenedHeader]:
    """Open a header and give away its data key."""
    return lambda sealed: open_header(sealed[:HEADER], name="x", keys=keys)


@pytest.fixture
def forge() -> Callable[..., bytes]:
    """Make a slot as an insider would who has the data key: any body, with the right MAC."""

    def forge(
        body: bytes | dict[str, Any],
        *,
        data_key: bytes,
        file_id: bytes,
        padding: bytes = b"",
        magic: bytes = b"SEALBOOK",
    ) -> bytes:
        text = body if isinstance(body, bytes) else canonical_json(body)
        slot = (magic + len(text).to_bytes(4, "big") + text + padding).ljust(SLOT - 32, b"\0")
        return slot + hmac.digest(header_mac_key(data_key, file_id), slot, hashlib.sha256)

    return forge


@pytest.fixture
def plain_file(tmp_path: Path) -> Path:
    path = tmp_path / "plain.bin"
    path.write_bytes(PLAIN)
    return path
