"""Padding of shared libraries: exactly as far as the gaps between their segments reach, and nothing else."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path, PurePosixPath

import pytest

from sealbook.errors import MissingDependencyError
from sealbook.image import elf, tree

PAGE = 4096


def library(*segments: tuple[int, int, int], length: int, kind: int = 1) -> bytes:
    """Return an ELF file of `length` bytes with segments (address, place in the file, bytes in memory)."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    for address, place, memory in segments:
        header += struct.pack("<IIQQQQQQ", kind, 5, place, address, address, memory, memory, PAGE)
    assert len(header) <= length
    return header.ljust(length, b"\xcc")


#: As libXau of Pillow's wheel: the second segment lies far behind the first, and the file ends before.
GAP = library((0, 0, 0x3000), (0x10000, 0x2000, 0x100), length=0x2100)


def padded(tmp_path: Path, data: bytes) -> bytes:
    path = tmp_path / "library.so"
    path.write_bytes(data)
    elf.pad(path)
    return path.read_bytes()


def test_a_library_is_padded_with_zeros_to_where_its_gap_begins(tmp_path):
    assert padded(tmp_path, GAP) == GAP.ljust(0x3000, b"\0")


def test_padding_again_changes_nothing(tmp_path):
    assert padded(tmp_path, padded(tmp_path, GAP)) == GAP.ljust(0x3000, b"\0")


@pytest.mark.parametrize(
    ("segments", "length", "wanted"),
    [
        # Memory ends within a page: the gap begins at the next one.
        ([(0, 0, 0x2001), (0x10000, 0x1000, 1)], 0x1001, 0x3000),
        # The first segment is at an address of its own, and not at the file's beginning.
        ([(0x400000, 0x1000, 0x3000), (0x410000, 0x2000, 1)], 0x2001, 0x4000),
        # Headers in any order; the last gap counts.
        ([(0x20000, 0x3000, 1), (0, 0, 0x1000), (0x8000, 0x1000, 0x4000)], 0x3001, 0xC000),
    ],
)
def test_the_gap_begins_on_a_page_behind_the_segment(tmp_path, segments, length, wanted):
    data = library(*segments, length=length)
    assert padded(tmp_path, data) == data.ljust(wanted, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        library((0, 0, 0x1000), (0x1000, 0x1000, 0x1000), length=0x2000),  # no gap
        library((0, 0, 0x1800), (0x2100, 0x1100, 0x100), length=0x1200),  # ends and begins in neighbours
        library((0, 0, 0x1000), (0x9000, 0x1000, 0x1000), length=0x2000),  # its gap is within the file
        library((0, 0, 0x3000), length=0x200),  # one segment
        library(length=0x40),  # none
        library((0, 0, 0x3000), (0x10000, 0x2000, 1), length=0x2100, kind=2),  # nothing to load
        b"",
        b"#!/bin/sh\n",
        b"\x7fEL",
        b"\x7fELF\x01\x01" + GAP[6:],  # 32 bit
        b"\x7fELF\x02\x02" + GAP[6:],  # big-endian
    ],
)
def test_other_files_are_left_as_they_are(tmp_path, data):
    assert padded(tmp_path, data) == data


@pytest.mark.parametrize("length", [6, 7, 32, 63, 64, 65, 100, 119, 120, 175])
def test_a_truncated_library_is_left_as_it_is(tmp_path, length):
    assert padded(tmp_path, GAP[:length]) == GAP[:length]


def test_headers_that_lie_outside_of_the_file_are_not_followed(tmp_path):
    for offset in (len(GAP), 1 << 40, (1 << 64) - 1):
        data = GAP[:32] + struct.pack("<Q", offset) + GAP[40:]
        assert padded(tmp_path, data) == data


def test_headers_of_no_size_do_not_crash(tmp_path):
    data = GAP[:54] + struct.pack("<HH", 0, 0xFFFF) + GAP[58:]
    assert padded(tmp_path, data)[: len(data)] == data


def test_a_gap_that_no_library_has_does_not_fill_the_disk(tmp_path):
    """A size is what a header says; the file itself is what a wheel brought."""
    data = library((0, 0, 1 << 50), (1 << 60, 0x2000, 1), length=0x2100)
    assert padded(tmp_path, data) == data


def test_headers_of_any_content_never_crash_and_never_change_what_is_there(tmp_path):
    rng = random.Random(7)
    for _ in range(300):
        data = bytearray(GAP)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(6, 176)] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        found = padded(tmp_path, bytes(data))
        assert found[: len(data)] == data
        assert not found[len(data) :].strip(b"\0")


def test_what_is_put_into_an_image_is_padded_and_its_source_is_not(tmp_path):
    source = tmp_path / "source.so"
    source.write_bytes(GAP)
    target = tree.put(source, tmp_path / "root", PurePosixPath("/lib/x.so"))
    assert len(target.read_bytes()) == 0x3000
    assert source.read_bytes() == GAP


def test_a_link_is_put_as_what_it_leads_to(tmp_path):
    (tmp_path / "real").write_text("content")
    (tmp_path / "link").symlink_to("real")
    target = tree.put(tmp_path / "link", tmp_path / "root", PurePosixPath("/bin/x"), mode=0o755)
    assert not target.is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("content", 0o755)


def test_debugging_information_is_removed_or_said(tmp_path, monkeypatch):
    source = tmp_path / "x.so"
    source.write_bytes(b"\0.debug_info\0")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="apt install binutils"):
        tree.put_stripped(source, tmp_path / "root", PurePosixPath("/lib/x.so"))
    source.write_bytes(b"none")
    tree.put_stripped(source, tmp_path / "root", PurePosixPath("/lib/x.so"))
    assert (tmp_path / "root/lib/x.so").read_bytes() == b"none"
