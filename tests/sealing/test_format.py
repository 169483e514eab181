"""The format is the one that the package's docstring specifies, and Tink's from byte 8192 on."""

from __future__ import annotations

import base64
import io
import json
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from real_tink import tink_primitive
from sealbook.encoding import canonical_json
from sealbook.errors import InputError
from sealbook.sealing import SealedReader, segments
from sealbook.sealing.envelope import commitment, derive
from sealbook.sealing.header import HEADER, MAX_BODY, SLOT, SegmentCipher, encode_slot, new_header, rewrap
from sealbook.sealing.keys import MAX_KEY_VERSION, SealingKey
from sealbook.sealing.segments import FIRST, REST, SEGMENT

LENGTHS = [
    0,
    1,
    1000,
    FIRST - 1,
    FIRST,
    FIRST + 1,
    FIRST + REST - 1,
    FIRST + REST,
    FIRST + REST + 1,
    3 * SEGMENT + 7,
]


@pytest.mark.parametrize("length", LENGTHS)
def test_tink_opens_what_sealbook_sealed(length, make, opened):
    plain = os.urandom(length)
    sealed = make(plain)
    header = opened(sealed)
    primitive = tink_primitive(header.data_key)
    with primitive.new_decrypting_stream(io.BytesIO(sealed[HEADER:]), header.header.aad) as stream:
        assert stream.read() == plain


@pytest.mark.parametrize("length", LENGTHS)
def test_sealbook_opens_what_tink_sealed(length, keys):
    plain = os.urandom(length)
    header = new_header(
        keys.current("other"), context={"a": "b"}, codec="file", codec_metadata=None, sealer=None
    )

    class Kept(io.BytesIO):
        def close(self):
            self.kept = self.getvalue()
            super().close()

    out = Kept()
    with tink_primitive(header.data_key).new_encrypting_stream(out, header.header.aad) as stream:
        stream.write(plain)
    sealed = encode_slot(header.header, header.data_key) * 2 + out.kept
    with SealedReader(io.BytesIO(sealed), keys=keys, context={"a": "b"}) as file:
        assert file.size == length
        file.seek(length // 2)
        assert file.read() == plain[length // 2 :]
        file.seek(0)
        assert file.read() == plain


def test_the_segments_are_aligned_and_as_long_as_specified(make):
    sealed = make(bytes(FIRST + REST + 5))
    assert len(sealed) == HEADER + 2 * SEGMENT + 5 + 16
    assert sealed[HEADER] == 40


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_has_one_stream_length_and_back(length):
    assert segments.plain_size(segments.stream_size(length)) == length


def test_stream_lengths_that_sealing_never_makes_have_no_plaintext_length():
    # One to sixteen bytes past a full segment: an empty last segment, or a part of a tag.
    lengths = [*range(56), *(SEGMENT + n for n in range(1, 17)), *(2 * SEGMENT + n for n in range(1, 17))]
    assert [n for n in lengths if segments.plain_size(n) is not None] == []


def test_a_slot_is_what_the_specification_says_without_our_code(make, keys):
    sealed = make(b"x", codec_metadata={"n": 1})
    slot = sealed[:SLOT]
    assert slot == sealed[SLOT : 2 * SLOT]
    assert slot[:8] == b"SEALBOOK"
    length = int.from_bytes(slot[8:12], "big")
    body = json.loads(slot[12 : 12 + length])
    assert not any(slot[12 + length : -32])
    file_id, entry = base64.b64decode(body["file_id"]), body["keys"][0]
    committed, wrapped = base64.b64decode(body["commitment"]), base64.b64decode(entry["wrapped"])
    key = keys.get(entry["key"], entry["version"])
    aad = {"algorithm": body["algorithm"], "commitment": committed.hex(), "file_id": file_id.hex()}
    aad |= {"key": entry["key"], "version": entry["version"]}
    wrapping = derive(key.secret, salt=file_id, info=b"sealbook 1 key wrapping")
    data_key = AESGCM(wrapping).decrypt(wrapped[:12], wrapped[12:], canonical_json(aad))
    assert commitment(data_key, file_id) == committed
    for mutable in ("keys", "sequence", "codec_metadata"):
        del body[mutable]
    cipher = SegmentCipher(data_key, canonical_json(body), sealed[HEADER : HEADER + 40])
    assert cipher.decrypt(0, True, sealed[HEADER + 40 :]) == b"x"


def test_two_sealings_of_the_same_bytes_have_nothing_secret_in_common(make):
    first, second = make(bytes(5000)), make(bytes(5000))
    assert first[HEADER + 1 :] != second[HEADER + 1 :]
    same = sum(a == b for a, b in zip(first[HEADER + 40 :], second[HEADER + 40 :], strict=True))
    assert same < 100


def test_no_plaintext_and_no_secret_lies_in_the_file(make, opened, keys):
    sealed = make(b"marker of the plaintext " * 50)
    assert b"marker" not in sealed
    for secret in (opened(sealed).data_key, keys.current("team/data").secret):
        assert secret not in sealed
        assert base64.b64encode(secret) not in sealed


def test_a_header_that_fits_once_fits_after_every_rotation(make, opened, keys):
    longest = keys.create("a" * 64 + "/" + "b" * 64)
    room = 3800
    while True:
        try:
            header = new_header(
                keys.current("other"),
                context={"k": "x" * room},
                codec="file",
                codec_metadata=None,
                sealer=None,
            )
            break
        except InputError:
            room -= 1
    key = SealingKey(longest.name, MAX_KEY_VERSION, longest.secret)
    body = rewrap(header, key, sequence=2**53).body()
    assert MAX_BODY - 80 < len(body) <= MAX_BODY
