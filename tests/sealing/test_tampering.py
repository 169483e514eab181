"""Whatever is changed in a sealed file, it is refused, nothing comes out, and the refusal tells nothing."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import traceback
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealbook.encoding import canonical_json
from sealbook.errors import InputError
from sealbook.sealing import (
    DamagedFileError,
    InMemoryKeys,
    KeyUnavailableError,
    NotSealedError,
    SealedReader,
    SealingKey,
    UnsealError,
    envelope,
    inspect,
    open_sealed,
    read_bytes,
    seal_file,
    unseal_file,
    write_bytes,
)
from sealbook.sealing import header as headers
from sealbook.sealing.header import HEADER, SLOT, encode_slot, open_header
from sealbook.sealing.segments import FIRST, REST, SEGMENT, SegmentCipher

THREE = FIRST + REST + 1000


@pytest.fixture
def refused(keys, tmp_path):
    """Assert that bytes are refused by every way of opening, and that nothing is written."""

    def refused(sealed: bytes, *, error=UnsealError, keys=keys, **options):
        with pytest.raises(error) as first, SealedReader(io.BytesIO(sealed), keys=keys, **options) as file:
            file.read()
        (tmp_path / "tampered").write_bytes(sealed)
        (tmp_path / "out").write_bytes(b"old")
        with pytest.raises(error) as second:
            unseal_file(tmp_path / "tampered", tmp_path / "out", keys=keys, **options)
        assert (tmp_path / "out").read_bytes() == b"old"
        assert set(os.listdir(tmp_path)) <= {"tampered", "out"}
        return first.value, second.value

    return refused


@pytest.mark.parametrize("part", range(16))
def test_every_single_bit_flip_of_a_small_file_is_refused(part, make, keys):
    """All 66,000 bits of header, padding, MACs, stream header, ciphertext and tag."""
    sealed = make(b"secret!")
    for position in range(part * len(sealed) // 16, (part + 1) * len(sealed) // 16):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            # A flip in the key's name or version may name a key that nobody has.
            with pytest.raises((UnsealError, KeyUnavailableError)):
                SealedReader(io.BytesIO(changed), keys=keys)


def test_flips_all_over_a_file_of_three_segments_are_refused(make, refused):
    sealed = make(os.urandom(THREE))
    chosen = random.Random(7)
    edges = [
        HEADER,
        HEADER + 40,
        HEADER + SEGMENT - 1,
        HEADER + SEGMENT,
        HEADER + 2 * SEGMENT,
        len(sealed) - 1,
    ]
    for position in edges + [chosen.randrange(HEADER, len(sealed)) for _ in range(40)]:
        changed = bytearray(sealed)
        changed[position] ^= 1 << chosen.randrange(8)
        refused(bytes(changed))


def test_a_damaged_segment_is_not_returned_and_the_others_are(make, keys):
    plain = os.urandom(THREE)
    sealed = bytearray(make(plain))
    sealed[HEADER + SEGMENT + 5] ^= 1
    with SealedReader(io.BytesIO(sealed), keys=keys) as file:
        assert file.read(FIRST) == plain[:FIRST]
        with pytest.raises(UnsealError):
            file.read(1)
        buffer = bytearray(100)
        with pytest.raises(UnsealError):
            file.readinto(buffer)
        assert buffer == bytes(100)
        file.seek(FIRST + REST)
        assert file.read() == plain[FIRST + REST :]


def test_every_truncation_of_a_small_file_is_refused(make, keys):
    sealed = make(b"secret!")
    for length in range(len(sealed)):
        with pytest.raises(UnsealError if length >= 8 else NotSealedError):
            SealedReader(io.BytesIO(sealed[:length]), keys=keys)


@pytest.mark.parametrize(
    "length",
    [
        HEADER,
        HEADER + 40,
        HEADER + SEGMENT,
        HEADER + SEGMENT + 16,
        HEADER + SEGMENT + 17,
        HEADER + 2 * SEGMENT,
    ],
)
def test_a_truncation_at_a_segment_is_noticed_at_opening(length, make, keys, refused):
    sealed = make(os.urandom(THREE))[:length]
    with pytest.raises(UnsealError):
        SealedReader(io.BytesIO(sealed), keys=keys)
    refused(sealed)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_bytes_is_refused(data, make, read):
    sealed = make(b"secret!" * 100)
    start = data.draw(st.integers(0, len(sealed)))
    end = data.draw(st.integers(start, min(len(sealed), start + 200)))
    changed = sealed[:start] + data.draw(st.binary(max_size=200)) + sealed[end:]
    if changed != sealed:
        with pytest.raises((UnsealError, NotSealedError, KeyUnavailableError)):
            read(changed)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=3 * SLOT), magic=st.booleans())
def test_arbitrary_bytes_are_refused(junk, magic, read):
    with pytest.raises((UnsealError, NotSealedError)):
        read((headers.MAGIC if magic else b"") + junk)


@pytest.mark.parametrize("extension", [b"\0", b"x" * 16, b"x" * 17, bytes(SLOT), bytes(SEGMENT)])
def test_an_extended_file_is_refused(extension, make, refused):
    refused(make() + extension)
    refused(make(os.urandom(THREE)) + extension)


def test_a_segment_appended_again_is_refused(make, refused):
    sealed = make(os.urandom(FIRST + REST))
    refused(sealed + sealed[-SEGMENT:])


def test_swapped_segments_are_refused(make, refused):
    sealed = make(os.urandom(FIRST + 3 * REST))
    parts = [sealed[:HEADER]] + [sealed[HEADER + i * SEGMENT :][:SEGMENT] for i in range(4)]
    refused(b"".join(parts[i] for i in (0, 1, 3, 2, 4)))
    refused(b"".join(parts[i] for i in (0, 1, 2, 2, 4)))
    refused(b"".join(parts[i] for i in (0, 1, 4, 3, 2)))
    refused(b"".join(parts[i] for i in (0, 1, 2, 4)))


def test_swaps_between_files_are_refused(make, refused):
    """Same key, same context, same sealer, same length: still two files."""
    plain = os.urandom(FIRST + REST)
    one, two = make(plain), make(plain)
    refused(one[:HEADER] + two[HEADER:])
    refused(one[:SLOT] + two[SLOT:HEADER] + one[HEADER:])
    refused(two[:SLOT] + one[SLOT:])
    refused(one[: HEADER + 40] + two[HEADER + 40 :])
    refused(one[: HEADER + SEGMENT] + two[HEADER + SEGMENT :])


def test_the_metadata_of_another_sealing_is_refused(make, opened, refused, forge):
    """The codec's metadata is not bound to the segments, so the MAC has to hold it."""
    sealed = make(codec="numpy", codec_metadata={"dtype": "int64"})
    header = replace(opened(sealed).header, codec_metadata={"dtype": "object"})
    refused(encode_slot(header, os.urandom(32)) * 2 + sealed[HEADER:])


def test_the_wrong_key_is_refused(make, refused):
    wrong = InMemoryKeys(SealingKey.generate("team/data"))
    refused(make(), keys=wrong)


def test_a_provider_that_answers_with_another_version_is_refused(make, keys, refused):
    class Confused(InMemoryKeys):
        def get(self, name, version):
            return SealingKey(name, version + 1, keys.get(name, version).secret)

    refused(make(), keys=Confused())


def test_a_provider_that_has_not_the_key_says_so(make, refused):
    one, two = refused(make(), keys=InMemoryKeys(), error=KeyUnavailableError)
    assert "version 1 of key team/data" in str(one) == str(two)


@pytest.mark.parametrize(
    "context", [{}, {"study": "B"}, {"study": "A", "more": ""}, {"Study": "A"}, {"study": "A "}]
)
def test_another_context_is_refused(context, make, refused, read):
    assert read(make(), context={"study": "A"}) == read(make())
    refused(make(), context=context)


def test_a_changed_context_is_refused_even_with_a_right_mac(make, opened, refused, keys):
    """An insider with the data key cannot move the stream under another immutable header either."""
    sealed = make()
    one = opened(sealed)
    for change in ({"context": {"study": "B"}}, {"codec": "json"}, {"sealer": {"measurement": "00"}}):
        slot = encode_slot(replace(one.header, **change), one.data_key)
        assert open_header(slot * 2, name="x", keys=keys)
        refused(slot * 2 + sealed[HEADER:])


def test_a_data_key_that_the_file_is_not_committed_to_is_refused(make, opened, keys, refused):
    """All else about this forgery is right: wrapping, MACs and segments, under the second data key."""
    sealed = make()
    one, second = opened(sealed), envelope.new_data_key()
    key = keys.current("team/data")
    header = one.header
    nonce = os.urandom(12)
    aad = envelope._wrap_aad(key, header.file_id, headers.ALGORITHM, header.commitment)
    wrapped = nonce + envelope._wrapper(key, header.file_id).encrypt(nonce, second, aad)
    header = replace(header, keys=(headers.WrappedKey(key.name, key.version, wrapped),))
    cipher = SegmentCipher(second, header.aad)
    out = bytearray(5 + 16)
    cipher.encrypt_into(0, True, b"evil!", out)
    refused(encode_slot(header, second) * 2 + cipher.stream_header + out)


@pytest.mark.parametrize("field", ["file_id", "key", "version", "algorithm", "commitment"])
def test_a_wrapped_key_is_bound_to_its_file_and_key(field):
    key, file_id, data_key = SealingKey.generate("a"), bytes(16), bytes(32)
    committed = envelope.commitment(data_key, file_id)
    wrapped = envelope.wrap(data_key, key, file_id=file_id, algorithm="A")
    given = {"file_id": file_id, "algorithm": "A", "committed": committed}
    assert envelope.unwrap(wrapped, key, **given) == data_key
    if field == "key":
        key = SealingKey("b", 1, key.secret)
    elif field == "version":
        key = SealingKey("a", 2, key.secret)
    else:
        field = "committed" if field == "commitment" else field
        given[field] = "B" if field == "algorithm" else b"x" + given[field][1:]
    aad = envelope._wrap_aad(key, given["file_id"], given["algorithm"], given["committed"])
    assert aad != envelope._wrap_aad(SealingKey("a", 1, key.secret), file_id, "A", committed)
    assert envelope.unwrap(wrapped, key, **given) is None


def forgeries(body):
    """Bodies that differ from what sealbook writes, each in one way."""
    text = canonical_json(body)
    entry = body["keys"][0]
    yield "white space", text.replace(b",", b", ", 1)
    yield "key order", json.dumps(dict(reversed(body.items())), separators=(",", ":")).encode()
    yield "an escape", text.replace(b"AES256", b"\\u0041ES256")
    yield "a repeated field", text[:-1] + b',"sequence":0}'
    yield "an unknown field", body | {"extra": 1}
    for name in body:
        yield f"no {name}", {k: v for k, v in body.items() if k != name}
        yield f"null {name}", body | {name: None}
    yield "another format", body | {"format": 2}
    yield "true for one", body | {"format": True}
    yield "another algorithm", body | {"algorithm": "AES256-GCM-HKDF-4KB"}
    yield "another segment size", body | {"segment_bytes": 4096}
    yield "a short file id", body | {"file_id": "AAAA"}
    loose = chr(ord(body["file_id"][-3]) + 1)  # its last four bits do not count
    yield "loose base64", body | {"file_id": body["file_id"][:-3] + loose + "=="}
    yield "a negative sequence", body | {"sequence": -1}
    yield "an endless sequence", body | {"sequence": 2**53 + 1}
    yield "a sequence that is true", body | {"sequence": True}
    yield "a loose date", body | {"sealed_at": body["sealed_at"].replace("-0", "-").replace("T0", "T")[:-1]}
    yield "a bad codec name", body | {"codec": "../x"}
    yield "a codec that is a number", body | {"codec": 1}
    yield "metadata that is a list", body | {"codec_metadata": []}
    yield "a sealer that is a list", body | {"sealer": []}
    yield "a context of numbers", body | {"context": {"a": 1}}
    yield "an empty context name", body | {"context": {"": "a"}}
    yield "a context that is a list", body | {"context": []}
    yield "no keys", body | {"keys": []}
    yield "five keys", body | {"keys": [entry] * 5}
    yield "a bad key name", body | {"keys": [entry | {"key": "A"}]}
    yield "version zero", body | {"keys": [entry | {"version": 0}]}
    yield "a huge version", body | {"keys": [entry | {"version": 2**31}]}
    yield "an unknown field of a key", body | {"keys": [entry | {"x": 1}]}
    yield "a short wrapped key", body | {"keys": [entry | {"wrapped": "AAAA"}]}
    yield "keys that are an object", body | {"keys": {"0": entry}}
    yield "deep nesting", body | {"codec_metadata": {"x": json.loads("[" * 40 + "]" * 40)}}
    yield "a list", b"[]"
    yield "nothing", b""
    yield "no UTF-8", text.replace(b"file", b"f\xfcle", 1)


def test_headers_that_sealbook_does_not_write_are_refused(make, opened, forge, read, refused):
    sealed = make()
    one = opened(sealed)
    secrets = {"data_key": one.data_key, "file_id": one.header.file_id}
    body = json.loads(one.header.body())
    assert read(forge(body, **secrets) * 2 + sealed[HEADER:])
    names = []
    for name, changed in forgeries(body):
        assert isinstance(changed, bytes) or canonical_json(changed) != canonical_json(body), name
        slot = forge(changed, **secrets)
        with pytest.raises(headers._MalformedError):
            headers.parse_slot(slot)
        refused(slot * 2 + sealed[HEADER:])
        names.append(name)
    assert len(names) > 50
    good = forge(body, **secrets)
    padded = forge(body, **secrets, padding=b"\0hidden")
    refused(padded * 2 + sealed[HEADER:])
    after = body | {"sequence": 1}
    assert read(good + forge(after, **secrets) + sealed[HEADER:])
    refused(forge(body, **secrets, magic=b"SEALBOOX") + forge(after, **secrets) + sealed[HEADER:])
    refused(good + forge(after, **secrets, magic=b"SEALBOOX") + sealed[HEADER:])


def test_a_length_beyond_the_slot_is_refused(make, opened, forge, refused):
    sealed = make()
    for length in (0, headers.MAX_BODY + 1, SLOT, 2**32 - 1):
        slot = sealed[:8] + length.to_bytes(4, "big") + sealed[12:SLOT]
        refused(slot * 2 + sealed[HEADER:])


@pytest.mark.parametrize(("first", "second"), [(0, 2), (1, 0), (5, 4), (0, 100)])
def test_slots_further_apart_than_a_rotation_leaves_them_are_refused(
    first, second, make, opened, refused, read
):
    sealed = make()
    one = opened(sealed)
    slots = {n: encode_slot(replace(one.header, sequence=n), one.data_key) for n in (0, 1, first, second)}
    assert read(slots[0] + slots[1] + sealed[HEADER:])
    refused(slots[first] + slots[second] + sealed[HEADER:])


@pytest.mark.parametrize("position", [SLOT - 1, SLOT - 40])
@pytest.mark.parametrize("slot", [0, 1])
def test_in_the_middle_of_a_rotation_both_slots_are_checked(slot, position, make, opened, refused, read):
    """The bytes differ then anyway, so only its MAC tells that one of them was changed."""
    sealed = make()
    one = opened(sealed)
    after = encode_slot(replace(one.header, sequence=1), one.data_key)
    middle = bytearray(sealed[:SLOT] + after + sealed[HEADER:])
    assert read(bytes(middle))
    middle[slot * SLOT + position] ^= 1
    refused(bytes(middle))


def test_two_authentic_slots_of_one_sequence_that_differ_are_refused(make, opened, keys, refused):
    sealed = make()
    one = opened(sealed)
    other = headers.rewrap(one, keys.current("other"), sequence=0)
    refused(encode_slot(other, one.data_key) + sealed[SLOT:])


def test_two_authentic_slots_that_disagree_on_what_cannot_change_are_refused(make, opened, refused):
    sealed = make()
    one = opened(sealed)
    other = replace(one.header, context={"study": "B"})
    after = replace(one.header, sequence=1)
    refused(encode_slot(other, one.data_key) + encode_slot(after, one.data_key) + sealed[HEADER:])


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_is_refused_though_the_other_is_whole(slot, make, refused):
    sealed = bytearray(make())
    sealed[slot * SLOT + 3000] ^= 1
    refused(bytes(sealed))
    sealed[slot * SLOT : (slot + 1) * SLOT] = bytes(SLOT)
    refused(bytes(sealed))


def test_the_stream_header_is_checked(make, refused):
    sealed = bytearray(make())
    sealed[HEADER] = 41
    refused(bytes(sealed))


def test_every_refusal_is_the_same_sentence_and_holds_no_secret(make, opened, refused, keys):
    sealed = make(os.urandom(THREE))
    secrets = [opened(sealed).data_key, keys.current("team/data").secret]

    def flipped(position):
        return sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]

    cases = [
        refused(flipped(20)),
        refused(flipped(SLOT - 1)),
        refused(flipped(HEADER + 3)),
        refused(flipped(HEADER + SEGMENT + 3)),
        refused(sealed[:-1]),
        refused(sealed, context={"study": "B"}),
        refused(sealed, keys=InMemoryKeys(SealingKey.generate("team/data"))),
    ]
    assert len({str(first).replace("The file", "") for first, _ in cases}) == 1
    assert len({str(second) for _, second in cases}) == 1
    for error in (error for pair in cases for error in pair):
        # The cause would tell which check it was, in logs and notebooks.
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        text = "".join(traceback.format_exception(error)) + repr(error.args)
        for secret in secrets:
            assert repr(secret) not in text
            assert secret.hex() not in text
            assert base64.b64encode(secret).decode() not in text


def test_inspecting_a_damaged_or_foreign_file_is_refused(tmp_path, make):
    path = tmp_path / "f"
    for data, error in [
        (b"", NotSealedError),
        (b"PK\3\4" + bytes(9000), NotSealedError),
        (make()[:100], DamagedFileError),
        (make()[:5000], DamagedFileError),
    ]:
        path.write_bytes(data)
        with pytest.raises(error):
            inspect(path)
    path.write_bytes(make()[:SLOT] + bytes(SLOT) + make()[HEADER:])
    assert not inspect(path).authenticated


def test_a_sealed_file_that_changes_under_the_reader_is_refused(tmp_path, keys):
    write_bytes(tmp_path / "s", os.urandom(THREE), key="other", keys=keys)
    with open_sealed(tmp_path / "s", keys=keys) as file:
        os.truncate(tmp_path / "s", HEADER + SEGMENT + 100)
        file.read(10)
        with pytest.raises(UnsealError):
            file.read()


def test_a_source_that_changes_while_it_is_sealed_leaves_nothing(tmp_path, keys, monkeypatch):
    source = tmp_path / "plain"
    real = SegmentCipher.encrypt_into
    for change in (lambda: os.truncate(source, 10), lambda: source.write_bytes(bytes(THREE + 5))):
        source.write_bytes(bytes(THREE))
        done = []

        def encrypt_into(self, index, *rest, done=done, change=change):
            if not done:
                done.append(change())
            return real(self, index, *rest)

        monkeypatch.setattr(SegmentCipher, "encrypt_into", encrypt_into)
        with pytest.raises(InputError, match="changed while"):
            seal_file(source, tmp_path / "s", key="other", keys=keys, threads=1)
        assert os.listdir(tmp_path) == ["plain"]


def test_a_source_that_ends_early_is_noticed_though_nothing_else_changed(tmp_path, keys, monkeypatch):
    """As on a network file system whose idea of a file's size is old."""
    source = tmp_path / "plain"
    source.write_bytes(bytes(THREE))
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, buffers, at: real(fd, buffers, at) if at < FIRST + 100 else 0
    )
    with pytest.raises(InputError, match="changed while"):
        seal_file(source, tmp_path / "s", key="other", keys=keys)
    assert os.listdir(tmp_path) == ["plain"]


def test_read_bytes_returns_nothing_of_a_file_with_a_damaged_end(tmp_path, keys, make):
    sealed = bytearray(make(os.urandom(THREE)))
    sealed[-1] ^= 1
    (tmp_path / "s").write_bytes(sealed)
    with pytest.raises(UnsealError):
        read_bytes(tmp_path / "s", keys=keys)
