"""The header: what a sealed file says about itself, in two slots of 4 KiB, and how it is checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError
from sealbook.sealing import envelope
from sealbook.sealing.errors import KeyUnavailableError, NotSealedError, UnsealError
from sealbook.sealing.keys import KEY_BYTES, MAX_KEY_VERSION, KeyProvider, SealingKey, check_key_name
from sealbook.sealing.segments import ALGORITHM, SEGMENT, SegmentCipher, plain_size

FORMAT = 1
MAGIC = b"SEALBOOK"
#: One slot; a power of two that devices write at once.
SLOT = 4096
#: Both slots; the stream begins here.
HEADER = 2 * SLOT
#: A file may be sealed to this many keys.
MAX_KEYS = 4
_LENGTH = 4
_MAC = 32
_BODY_START = len(MAGIC) + _LENGTH
MAX_BODY = SLOT - _BODY_START - _MAC
#: Room kept for the longest key entry, so that every sealed file can be rekeyed to every key,
#: and for the growth of the sequence number.
_RESERVED = 320

_CODEC_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MAX_SEQUENCE = 2**53


class _MalformedError(Exception):
    """The header is not one that sealbook writes; becomes one of the public errors."""


@dataclass(frozen=True)
class WrappedKey:
    """The data key, encrypted under one version of one sealing key."""

    key: str
    version: int
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True)
class Header:
    """The body of a header slot.

    Everything but `codec_metadata`, `sequence` and `keys` is bound to every segment of the file
    (:attr:`aad`); those three are authenticated by the slot's MAC alone, because the first
    is known only when the data has been written and the others change with a rotation.
    """

    file_id: bytes
    commitment: bytes
    sealed_at: datetime
    codec: str = "file"
    codec_metadata: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    sealer: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0
    keys: tuple[WrappedKey, ...] = ()

    @property
    def aad(self) -> bytes:
        """The bytes that are bound to every segment: canonical JSON of the immutable part."""
        return canonical_json(self._immutable())

    def body(self) -> bytes:
        """Return the canonical JSON of the whole body."""
        return canonical_json(
            self._immutable()
            | {
                "codec_metadata": dict(self.codec_metadata),
                "keys": [
                    {"key": k.key, "version": k.version, "wrapped": _encode(k.wrapped)} for k in self.keys
                ],
                "sequence": self.sequence,
            }
        )

    def _immutable(self) -> dict[str, Any]:
        return {
            "algorithm": ALGORITHM,
            "codec": self.codec,
            "commitment": _encode(self.commitment),
            "context": dict(self.context),
            "file_id": _encode(self.file_id),
            "format": FORMAT,
            "sealed_at": self.sealed_at.strftime(_TIME),
            "sealer": dict(self.sealer),
            "segment_bytes": SEGMENT,
        }


@dataclass(frozen=True)
class SealedInfo:
    """What a sealed file says about itself.

    Attributes
    ----------
    file_id
        32 hex digits; another sealing of the same data has another one.
    sealed_at
        UTC, to the second, as the sealer claimed it.
    keys
        Name and version of each key the file is sealed to.
    size, sealed_size
        Bytes of the plaintext and of the sealed file.
    authenticated
        False when this was read without a key: then nobody has checked any of it.
    """

    file_id: str
    algorithm: str
    sealed_at: datetime
    sealer: Mapping[str, Any]
    codec: str
    codec_metadata: Mapping[str, Any]
    context: Mapping[str, str]
    keys: tuple[tuple[str, int], ...]
    sequence: int
    size: int
    sealed_size: int
    authenticated: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe dictionary."""
        return {
            "file_id": self.file_id,
            "algorithm": self.algorithm,
            "sealed_at": self.sealed_at.strftime(_TIME),
            "sealer": dict(self.sealer),
            "codec": self.codec,
            "codec_metadata": dict(self.codec_metadata),
            "context": dict(self.context),
            "keys": [{"key": name, "version": version} for name, version in self.keys],
            "sequence": self.sequence,
            "size": self.size,
            "sealed_size": self.sealed_size,
            "authenticated": self.authenticated,
        }


@dataclass(frozen=True)
class OpenedHeader:
    """A header whose data key was found and whose slots are authentic."""

    header: Header
    data_key: bytes = field(repr=False)

    def cipher(self, stream_header: bytes | None = None) -> SegmentCipher:
        """Return the cipher of the file's segments."""
        return SegmentCipher(self.data_key, self.header.aad, stream_header)


def new_header(
    key: SealingKey,
    *,
    context: Mapping[str, str] | None,
    codec: str,
    codec_metadata: Mapping[str, Any] | None,
    sealer: Mapping[str, Any] | None,
) -> OpenedHeader:
    """Make the header of a new sealed file, with a new data key wrapped under `key`.

    Raises
    ------
    InputError
        The context, codec, codec metadata or sealer cannot be written into a header.
    """
    if not isinstance(codec, str) or not _CODEC_NAME.fullmatch(codec):
        raise InputError("A codec's name has up to 64 of a-z, 0-9, '.', '_' and '-'.")
    data_key, file_id = envelope.new_data_key(), envelope.new_file_id()
    header = Header(
        file_id=file_id,
        commitment=envelope.commitment(data_key, file_id),
        sealed_at=datetime.now(UTC).replace(microsecond=0),
        codec=codec,
        codec_metadata=dict(codec_metadata or {}),
        context=check_context(context or {}),
        sealer=dict(sealer or {}),
    )
    header = rewrap(OpenedHeader(header, data_key), key, sequence=0)
    check_fits(header)
    return OpenedHeader(header, data_key)


def check_context(context: Mapping[str, str]) -> dict[str, str]:
    """Return `context` as a dictionary if it is one of text to text.

    Raises
    ------
    InputError
        It is not.
    """
    try:
        result = dict(context)
    except (TypeError, ValueError):
        result = {"": ""}
    if not _is_context(result):
        raise InputError("A context maps non-empty text to text, for example {'study': 'A12'}.")
    return result


def rewrap(opened: OpenedHeader, key: SealingKey, *, sequence: int) -> Header:
    """Return the header with the data key wrapped under `key` alone."""
    header = opened.header
    wrapped = envelope.wrap(opened.data_key, key, file_id=header.file_id, algorithm=ALGORITHM)
    return replace(header, sequence=sequence, keys=(WrappedKey(key.name, key.version, wrapped),))


def check_fits(header: Header) -> None:
    """Refuse a header that would not fit in a slot, now or after a rotation.

    Raises
    ------
    InputError
        It is too long, or not made of strings, whole numbers, booleans, lists and dictionaries.
    """
    try:
        length = len(replace(header, keys=()).body())
        canonical = parse_json(header.body(), what="the header", max_bytes=SLOT * 4)
    except (TypeError, ValueError):
        raise InputError(
            "Context, codec metadata and sealer may hold text, whole numbers, booleans, lists and"
            " dictionaries with text keys only."
        ) from None
    if length > MAX_BODY - _RESERVED or not isinstance(canonical, dict):
        raise InputError(
            f"Context and codec metadata are {length - MAX_BODY + _RESERVED} bytes too long for the header;"
            " shorten them."
        )


def encode_slot(header: Header, data_key: bytes) -> bytes:
    """Return the :data:`SLOT` bytes of `header`: magic, length, body, zeros, HMAC-SHA256."""
    body = header.body()
    slot = MAGIC + len(body).to_bytes(_LENGTH, "big") + body
    slot = slot.ljust(SLOT - _MAC, b"\0")
    return slot + _mac(slot, header, data_key)


def open_header(
    raw: bytes,
    *,
    name: str,
    keys: KeyProvider,
    context: Mapping[str, str] | None = None,
    key: str | None = None,
) -> OpenedHeader:
    """Check both slots and find the data key.

    Parameters
    ----------
    raw
        The first :data:`HEADER` bytes of the file.
    name
        For messages.
    context
        When given, the file must have been sealed with exactly this context.
    key
        When given, the file must be sealed to the key of this name, in any version, and to no other.

    Raises
    ------
    InputError
        `context` or `key` is not one.
    NotSealedError
        Neither slot begins with the magic.
    KeyUnavailableError
        The provider releases none of the keys that the file is sealed to.
    UnsealError
        Everything else.
    """
    expected = None if context is None else canonical_json(check_context(context))
    if key is not None:
        check_key_name(key)
    if not _has_magic(raw):
        raise NotSealedError(name)
    slots = raw[:SLOT], raw[SLOT:HEADER]
    try:
        first, second = (parse_slot(slot) for slot in slots)
        if second.sequence - first.sequence not in (0, 1):
            raise _MalformedError
    except _MalformedError:
        raise UnsealError(name) from None
    # Before a key is asked for, so that none is released for a file that will not be opened. What
    # passes is authentic afterwards: the name is bound to the wrapped data key and to the slot.
    if key is not None and any(entry.key != key for entry in second.keys):
        raise UnsealError(name)
    opened = _unlock(second, name=name, keys=keys)
    # Both slots, always: an interrupted rotation leaves two authentic ones, damage does not.
    authentic = [
        is_authentic(slot, header, opened.data_key)
        for slot, header in zip(slots, (first, second), strict=True)
    ]
    same_file = hmac.compare_digest(first.aad, second.aad)
    if not (all(authentic) and same_file):
        raise UnsealError(name)
    if first.sequence == second.sequence and not hmac.compare_digest(*slots):
        raise UnsealError(name)
    if expected is not None and not hmac.compare_digest(expected, canonical_json(opened.header.context)):
        raise UnsealError(name)
    return opened


def open_slot(slot: bytes, *, name: str, keys: KeyProvider) -> OpenedHeader | None:
    """Check one slot by itself, for the repair of an interrupted rotation; None if it is damaged."""
    try:
        header = parse_slot(slot)
        opened = _unlock(header, name=name, keys=keys)
    except (_MalformedError, UnsealError):
        return None
    return opened if is_authentic(slot, header, opened.data_key) else None


def inspect_header(raw: bytes, *, name: str, sealed_size: int) -> SealedInfo:
    """Read a header without any key, so without checking that it is authentic.

    Raises
    ------
    NotSealedError
        Neither slot begins with the magic.
    UnsealError
        The header or the file's length is not one that sealbook writes.
    """
    if not _has_magic(raw):
        raise NotSealedError(name)
    for slot in (raw[SLOT:HEADER], raw[:SLOT]):
        try:
            return info(parse_slot(slot), name=name, sealed_size=sealed_size, authenticated=False)
        except _MalformedError:
            continue
    raise UnsealError(name)


def info(header: Header, *, name: str, sealed_size: int, authenticated: bool) -> SealedInfo:
    """Describe a file with this header and length.

    Raises
    ------
    UnsealError
        No sealed file has that length.
    """
    size = plain_size(sealed_size - HEADER)
    if size is None:
        raise UnsealError(name)
    return SealedInfo(
        file_id=header.file_id.hex(),
        algorithm=ALGORITHM,
        sealed_at=header.sealed_at,
        sealer=header.sealer,
        codec=header.codec,
        codec_metadata=header.codec_metadata,
        context=header.context,
        keys=tuple((k.key, k.version) for k in header.keys),
        sequence=header.sequence,
        size=size,
        sealed_size=sealed_size,
        authenticated=authenticated,
    )


def parse_slot(slot: bytes) -> Header:
    """Parse one slot strictly; says nothing about whether it is authentic."""
    length = int.from_bytes(slot[len(MAGIC) : _BODY_START], "big")
    if len(slot) != SLOT or not slot.startswith(MAGIC):
        raise _MalformedError
    body = slot[_BODY_START : _BODY_START + length]
    if any(slot[_BODY_START + length : SLOT - _MAC]):
        raise _MalformedError
    try:
        value = parse_json(body, what="the header", max_bytes=MAX_BODY)
        header = _from_json(value)
        # One header, one encoding: nothing can hide in white space, key order or escapes.
        if header.body() != body:
            raise _MalformedError
    except (InputError, TypeError, ValueError, KeyError, AttributeError):
        raise _MalformedError from None
    return header


def is_authentic(slot: bytes, header: Header, data_key: bytes) -> bool:
    """Tell whether the slot's MAC is the one this data key gives."""
    return hmac.compare_digest(_mac(slot[: SLOT - _MAC], header, data_key), slot[SLOT - _MAC :])


def _mac(text: bytes, header: Header, data_key: bytes) -> bytes:
    return hmac.digest(envelope.header_mac_key(data_key, header.file_id), text, hashlib.sha256)


def _has_magic(raw: bytes) -> bool:
    # Either slot will do: a file whose first slot was hit is a damaged sealed file, not some other file.
    return raw.startswith(MAGIC) or raw[SLOT:].startswith(MAGIC)


def _unlock(header: Header, *, name: str, keys: KeyProvider) -> OpenedHeader:
    unavailable: KeyUnavailableError | None = None
    for entry in header.keys:
        try:
            key = keys.get(entry.key, entry.version)
        except KeyUnavailableError as error:
            unavailable = unavailable or error
            continue
        data_key = envelope.unwrap(
            entry.wrapped, key, file_id=header.file_id, algorithm=ALGORITHM, committed=header.commitment
        )
        if data_key is None:
            raise UnsealError(name)
        return OpenedHeader(header, data_key)
    raise unavailable or UnsealError(name)


def _from_json(value: Any) -> Header:
    """Build the header from parsed JSON.

    Another format or algorithm, and fields that are unknown or missing, show when the bodies are compared.
    """
    header = Header(
        file_id=_decode(value["file_id"], envelope.FILE_ID_BYTES),
        commitment=_decode(value["commitment"], KEY_BYTES),
        sealed_at=datetime.strptime(value["sealed_at"], _TIME).replace(tzinfo=UTC),
        codec=value["codec"],
        codec_metadata=value["codec_metadata"],
        context=value["context"],
        sealer=value["sealer"],
        sequence=value["sequence"],
        keys=tuple(
            WrappedKey(
                check_key_name(entry["key"]),
                _whole(entry["version"], 1, MAX_KEY_VERSION),
                _decode(entry["wrapped"], envelope.WRAPPED_BYTES),
            )
            for entry in value["keys"]
        ),
    )
    _whole(header.sequence, 0, _MAX_SEQUENCE)
    if not (
        1 <= len(header.keys) <= MAX_KEYS
        and _CODEC_NAME.fullmatch(header.codec)
        and _is_context(header.context)
    ):
        raise _MalformedError
    return header


def _is_context(context: Any) -> bool:
    return isinstance(context, dict) and all(
        isinstance(key, str) and key and isinstance(text, str) for key, text in context.items()
    )


def _whole(value: Any, lowest: int, highest: int) -> int:
    if type(value) is not int or not lowest <= value <= highest:
        raise _MalformedError
    return value


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: Any, length: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _MalformedError from None
    if len(data) != length:
        raise _MalformedError
    return data
