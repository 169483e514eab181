"""What was sealed comes back: whole, in parts, at any position, by every way in and out."""

from __future__ import annotations

import array
import fcntl
import io
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealbook.errors import InputError
from sealbook.sealing import (
    InMemoryKeys,
    SealedReader,
    SealedWriter,
    blockio,
    inspect,
    open_sealed,
    read_bytes,
    seal_file,
    unseal_file,
    write_bytes,
)
from sealbook.sealing.segments import FIRST, REST, SEGMENT

KEYS = InMemoryKeys()
KEYS.create("k")
POOL = random.Random(1).randbytes(4 * SEGMENT)
NEAR_EDGES = [
    edge + step
    for edge in (0, FIRST, FIRST + REST, FIRST + 2 * REST)
    for step in (-17, -16, -1, 0, 1, 16)
    if edge + step >= 0
]
lengths = st.one_of(st.integers(0, 300), st.sampled_from(NEAR_EDGES), st.integers(0, 3 * SEGMENT))
SLOW_DISK = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def streamed(plain: bytes, pieces: list[int]) -> bytes:
    out, rest = io.BytesIO(), memoryview(plain)
    with SealedWriter(out, key="k", keys=KEYS) as file:
        for piece in pieces:
            file.write(rest[:piece])
            rest = rest[piece:]
        file.write(rest)
    return out.getvalue()


@SLOW_DISK
@given(length=lengths, pieces=st.lists(st.integers(0, 2 * SEGMENT), max_size=5))
def test_what_is_written_in_any_pieces_is_read_back(length, pieces):
    plain = POOL[:length]
    with SealedReader(io.BytesIO(streamed(plain, pieces)), keys=KEYS) as file:
        assert file.size == length
        assert file.read() == plain


@SLOW_DISK
@given(length=lengths, data=st.data())
def test_reading_at_any_position_is_like_reading_the_plaintext(length, data):
    plain = POOL[:length]
    expected = io.BytesIO(plain)
    with SealedReader(io.BytesIO(streamed(plain, [])), keys=KEYS) as file:
        for _ in range(data.draw(st.integers(1, 12))):
            offset = data.draw(st.one_of(st.integers(0, length + 10), st.sampled_from(NEAR_EDGES)))
            size = data.draw(st.one_of(st.integers(0, 100), st.sampled_from([-1, 16, SEGMENT, 2 * SEGMENT])))
            assert file.seek(offset) == expected.seek(offset) == file.tell()
            into = data.draw(st.booleans())
            if into and size >= 0:
                buffer = bytearray(size)
                count = file.readinto(buffer)
                assert bytes(buffer[:count]) == expected.read(size)
            else:
                assert file.read(size) == expected.read(size)
            assert file.tell() == expected.tell()


@SLOW_DISK
@given(
    length=lengths,
    threads=st.integers(1, 5),
    direct=st.booleans(),
    context=st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=3),
)
def test_files_round_trip_with_any_threads_directly_and_through_the_page_cache(
    length, threads, direct, context, tmp_path, monkeypatch
):
    monkeypatch.setattr(blockio, "DIRECT_FROM", 0 if direct else 1 << 60)
    source, sealed, back = tmp_path / "source", tmp_path / "sealed", tmp_path / "back"
    source.write_bytes(POOL[:length])
    made = seal_file(source, sealed, key="k", keys=KEYS, threads=threads, context=context)
    assert read_bytes(sealed, keys=KEYS, context=context) == POOL[:length]
    seen = unseal_file(sealed, back, keys=KEYS, threads=threads, context=context)
    assert back.read_bytes() == POOL[:length]
    assert made == seen
    assert (made.size, made.sealed_size, made.context) == (length, sealed.stat().st_size, context)


def test_a_file_of_many_batches_round_trips_directly(tmp_path, monkeypatch):
    monkeypatch.setattr(blockio, "DIRECT_FROM", 0)
    plain = POOL * 10 + b"tail"
    (tmp_path / "plain").write_bytes(plain)
    for threads in (1, 3):
        seal_file(tmp_path / "plain", tmp_path / "sealed", key="k", keys=KEYS, threads=threads)
        unseal_file(tmp_path / "sealed", tmp_path / "back", keys=KEYS, threads=threads)
        assert (tmp_path / "back").read_bytes() == plain


def test_where_direct_io_is_refused_the_page_cache_serves(tmp_path, monkeypatch, plain_file):
    monkeypatch.setattr(blockio, "DIRECT_FROM", 0)
    real, refused = os.open, []

    def no_direct(path, flags, *rest, **options):
        if flags & os.O_DIRECT:
            refused.append(path)
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", no_direct)
    seal_file(plain_file, tmp_path / "sealed", key="k", keys=KEYS)
    unseal_file(tmp_path / "sealed", tmp_path / "back", keys=KEYS)
    assert (tmp_path / "back").read_bytes() == plain_file.read_bytes()
    assert len(refused) == 4


def test_where_direct_io_is_refused_only_when_it_is_used_the_page_cache_serves(tmp_path, monkeypatch):
    monkeypatch.setattr(blockio, "DIRECT_FROM", 0)
    refusals = []

    def is_direct(descriptor):
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT

    def refusing(real):
        def call(descriptor, *rest):
            if is_direct(descriptor):
                refusals.append(descriptor)
                raise OSError(22, "Invalid argument")
            return real(descriptor, *rest)

        return call

    monkeypatch.setattr(os, "preadv", refusing(os.preadv))
    monkeypatch.setattr(os, "pwrite", refusing(os.pwrite))
    (tmp_path / "plain").write_bytes(POOL)
    seal_file(tmp_path / "plain", tmp_path / "sealed", key="k", keys=KEYS)
    unseal_file(tmp_path / "sealed", tmp_path / "back", keys=KEYS)
    assert (tmp_path / "back").read_bytes() == POOL
    assert refusals


@pytest.mark.parametrize("direct", [0, 1 << 60])
def test_a_source_that_cannot_be_read_is_named(direct, tmp_path, monkeypatch, plain_file):
    monkeypatch.setattr(blockio, "DIRECT_FROM", direct)
    seal_file(plain_file, tmp_path / "sealed", key="k", keys=KEYS)

    def broken(*_):
        raise OSError(5, "Input/output error")

    for name in ("preadv", "pread"):
        monkeypatch.setattr(os, name, broken)
        with pytest.raises(InputError, match=r"plain.bin cannot be read \(Input/output error\)"):
            seal_file(plain_file, tmp_path / "s", key="k", keys=KEYS)
        with pytest.raises(InputError, match=r"sealed cannot be read \(Input/output error\)"):
            unseal_file(tmp_path / "sealed", tmp_path / "s", keys=KEYS)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("call", ["pwrite", "preadv"])
def test_a_disk_error_is_not_taken_for_a_refusal_of_direct_io(call, tmp_path, monkeypatch):
    """It is reported, though the page cache would have served."""
    monkeypatch.setattr(blockio, "DIRECT_FROM", 0)
    (tmp_path / "plain").write_bytes(POOL)
    real = getattr(os, call)

    def broken(descriptor, *rest):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(5, "Input/output error")
        return real(descriptor, *rest)

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(InputError, match="Input/output error"):
        seal_file(tmp_path / "plain", tmp_path / "sealed", key="k", keys=KEYS)
    assert os.listdir(tmp_path) == ["plain"]


def test_lines_and_text_wrappers_work(tmp_path):
    lines = [f"line {n}\n" for n in range(50_000)]
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS) as file, io.TextIOWrapper(file) as text:
        text.writelines(lines)
    with open_sealed(tmp_path / "s", keys=KEYS) as file:
        assert [line.decode() for line in file] == lines
    with open_sealed(tmp_path / "s", keys=KEYS) as file, io.TextIOWrapper(io.BufferedReader(file)) as text:
        assert text.readlines() == lines


def test_memoryviews_of_wider_items_are_written_whole(tmp_path):
    numbers = array.array("q", range(1000))
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS) as file:
        assert file.write(numbers) == 8000
    assert read_bytes(tmp_path / "s", keys=KEYS) == numbers.tobytes()


def test_a_file_can_be_sealed_and_unsealed_in_place(plain_file):
    plain = plain_file.read_bytes()
    seal_file(plain_file, plain_file, key="k", keys=KEYS)
    assert inspect(plain_file).size == len(plain)
    unseal_file(plain_file, plain_file, keys=KEYS)
    assert plain_file.read_bytes() == plain


def test_an_unsealed_file_is_for_its_owner_only(tmp_path, plain_file):
    seal_file(plain_file, tmp_path / "s", key="k", keys=KEYS)
    unseal_file(tmp_path / "s", tmp_path / "back", keys=KEYS)
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


def test_the_header_says_what_was_sealed_and_by_whom(tmp_path):
    options = {
        "context": {"study": "Ä"},
        "codec": "json",
        "codec_metadata": {"n": [1, None, True]},
        "sealer": {"simulated": True},
    }
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS, **options) as file:
        file.write(b"{}")
    about = inspect(tmp_path / "s")
    with open_sealed(tmp_path / "s", keys=KEYS) as file:
        authentic = file.info
    assert not about.authenticated
    assert authentic.authenticated
    for name, value in options.items():
        assert getattr(about, name) == getattr(authentic, name) == value
    assert about.to_dict()["keys"] == [{"key": "k", "version": 1}]
    assert about.to_dict()["size"] == 2


def test_a_codec_may_tell_its_metadata_after_it_has_written(tmp_path):
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS, codec="numpy") as file:
        file.write(bytes(2 * SEGMENT))
        file.codec_metadata = {"shape": [2, 3]}
    with open_sealed(tmp_path / "s", keys=KEYS) as file:
        assert file.info.codec_metadata == {"shape": [2, 3]}
        assert file.read() == bytes(2 * SEGMENT)


def test_metadata_cannot_be_changed_once_it_is_written(tmp_path):
    with (
        SealedWriter(io.BytesIO(), key="k", keys=KEYS) as file,
        pytest.raises(InputError, match="already written"),
    ):
        file.codec_metadata = {"a": 1}
    with open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS) as file:
        pass
    with pytest.raises(InputError, match="already written"):
        file.codec_metadata = {"a": 1}


@pytest.mark.parametrize(
    "metadata", [{"x": 1.5}, {"x": b"b"}, {1: 2}, {"x": "y" * 4000}, {"x": "\ud800"}, {"x": [[[]]] * 2000}]
)
def test_metadata_that_a_header_cannot_hold_is_refused_with_a_sentence(metadata, tmp_path):
    with pytest.raises(InputError, match=r"too long|may hold"):
        open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS, codec_metadata=metadata)
    file = open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS)
    with pytest.raises(InputError, match=r"too long|may hold"):
        file.codec_metadata = metadata
    file.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("context", [{"a": 1}, {1: "a"}, {"": "a"}, "abc", [1]])
def test_a_context_that_is_not_text_to_text_is_refused_with_a_sentence(context, tmp_path):
    with pytest.raises(InputError, match="context"):
        write_bytes(tmp_path / "s", b"", key="k", keys=KEYS, context=context)
    write_bytes(tmp_path / "s", b"", key="k", keys=KEYS)
    with pytest.raises(InputError, match="context"):
        read_bytes(tmp_path / "s", keys=KEYS, context=context)


@pytest.mark.parametrize("codec", ["", "A", "../x", "a b", "a" * 65, None, 1])
def test_what_is_no_codec_name_is_refused_with_a_sentence(codec, tmp_path):
    with pytest.raises(InputError, match="codec's name"):
        open_sealed(tmp_path / "s", "wb", key="k", keys=KEYS, codec=codec)


def test_seeking_before_the_start_and_using_a_closed_file_fail_as_files_do(tmp_path):
    write_bytes(tmp_path / "s", b"abc", key="k", keys=KEYS)
    with open_sealed(tmp_path / "s", keys=KEYS) as file:
        with pytest.raises(ValueError):
            file.seek(-1)
        with pytest.raises(ValueError):
            file.seek(0, 9)
        assert file.seek(-1, os.SEEK_END) == 2
        assert file.seek(-2, os.SEEK_CUR) == 0
        assert file.peek(1)[:1] == b"a"
        assert file.tell() == 0
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
    for use in (file.read, file.tell, file.peek, lambda: file.seek(0), lambda: file.readinto(bytearray(1))):
        with pytest.raises(ValueError):
            use()


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none_is_refused(threads, plain_file, tmp_path):
    with pytest.raises(InputError, match="threads"):
        seal_file(plain_file, tmp_path / "s", key="k", keys=KEYS, threads=threads)
    assert not (tmp_path / "s").exists()


def test_other_modes_are_refused(tmp_path):
    for mode in ("r", "w", "ab", "r+b", "xb"):
        with pytest.raises(InputError, match="'rb' or 'wb'"):
            open_sealed(tmp_path / "s", mode, keys=KEYS, key="k")


def test_what_is_no_regular_file_is_refused(tmp_path, plain_file):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null"), tmp_path / "nothing", "a\0b"):
        with pytest.raises(InputError):
            seal_file(path, tmp_path / "s", key="k", keys=KEYS)
        with pytest.raises(InputError):
            unseal_file(path, tmp_path / "s", keys=KEYS)
    for target in (tmp_path, tmp_path / "none" / "s"):
        with pytest.raises(InputError):
            seal_file(plain_file, target, key="k", keys=KEYS)
    with pytest.raises(InputError, match="any position"):
        SealedReader(os.fdopen(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb"), keys=KEYS)
    assert not (tmp_path / "s").exists()
