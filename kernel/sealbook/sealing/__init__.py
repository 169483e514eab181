"""Sealed files: envelope encryption, streaming, at any position, in any size."""

from __future__ import annotations

from sealbook.sealing.bulk import seal_file, unseal_file
from sealbook.sealing.errors import KeyUnavailableError, NotSealedError, UnsealError
from sealbook.sealing.header import SealedInfo
from sealbook.sealing.keys import (
    InMemoryKeys,
    KeyProvider,
    SealingKey,
    check_key_name,
    default_key_name,
    default_keys,
    set_default_keys,
)
from sealbook.sealing.opening import inspect, open_sealed, read_bytes, write_bytes
from sealbook.sealing.reader import SealedReader
from sealbook.sealing.rotation import rekey
from sealbook.sealing.writer import SealedWriter

__all__ = [
    "InMemoryKeys",
    "KeyProvider",
    "KeyUnavailableError",
    "NotSealedError",
    "SealedInfo",
    "SealedReader",
    "SealedWriter",
    "SealingKey",
    "UnsealError",
    "check_key_name",
    "default_key_name",
    "default_keys",
    "inspect",
    "open_sealed",
    "read_bytes",
    "rekey",
    "seal_file",
    "set_default_keys",
    "unseal_file",
    "write_bytes",
]
