"""Directories come back with files, empty directories and executable bits; nothing leads out of them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sealbook.errors import InputError
from sealbook.sealing.codecs import ContentError, codec_for, codec_named
from sealbook.sealing.codecs import directory as directory_module
from sealbook.sealing.codecs.directory import DirectoryCodec


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data set"
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "deep" / "ünïcode.txt").write_text("x" * 100_000)
    (root / ("long" * 50)).write_bytes(b"\x00\xff")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


def packed(root: Path) -> io.BytesIO:
    codec = codec_for(root)
    assert codec.name == "directory"
    file = io.BytesIO()
    codec.prepare(root).write(file)
    file.seek(0)
    return file


def listing(root: Path) -> dict[str, Any]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def unpack(file: io.BytesIO, target: Path) -> Path:
    codec = codec_named("directory")
    assert isinstance(codec, DirectoryCodec)
    return codec.read_to(file, target)


def test_a_directory_comes_back(tree: Path, tmp_path: Path) -> None:
    back = unpack(packed(tree), tmp_path / "back")
    assert listing(back) == listing(tree)
    assert os.access(back / "run.sh", os.X_OK)
    assert not os.access(back / "deep" / "ünïcode.txt", os.X_OK)


def test_the_archive_says_nothing_of_owner_or_time(tree: Path) -> None:
    with tarfile.open(fileobj=packed(tree)) as archive:
        assert {(m.uid, m.gid, m.uname, m.mtime) for m in archive} == {(0, 0, "", 0)}


def test_two_packings_of_one_directory_are_equal(tree: Path) -> None:
    assert packed(tree).getvalue() == packed(tree).getvalue()


@pytest.mark.parametrize("kind", ["file link", "directory link", "dangling link", "fifo"])
def test_a_directory_with_links_or_devices_is_not_sealed(tree: Path, kind: str) -> None:
    odd = tree / "deep" / "odd"
    if kind == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to(
            {"file link": tree / "run.sh", "directory link": tree, "dangling link": "nowhere"}[kind]
        )
    with pytest.raises(InputError, match="is a link or a device"):
        codec_for(tree).prepare(tree)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def archive_of(*members: Any) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    file.seek(0)
    return file


HOSTILE = {
    "parent": [member("../escaped", content=b"x")],
    "hidden parent": [member("a/../../escaped", content=b"x")],
    "parent that stays inside": [member("a", tarfile.DIRTYPE), member("a/../b", content=b"x")],
    "absolute": [member("/tmp/sealbook-escaped", content=b"x")],
    "symbolic link inside": [member("a", content=b"x"), member("b", tarfile.SYMTYPE, "a")],
    "symbolic link outside": [member("b", tarfile.SYMTYPE, "/etc"), member("b/passwd", content=b"x")],
    "hard link": [member("a", content=b"x"), member("b", tarfile.LNKTYPE, "a")],
    "character device": [member("a", tarfile.CHRTYPE)],
    "block device": [member("a", tarfile.BLKTYPE)],
    "fifo": [member("a", tarfile.FIFOTYPE)],
    "contiguous file": [member("a", tarfile.CONTTYPE, content=b"x")],
    "one name twice": [member("a", content=b"x"), member("./a", content=b"y")],
    "the root itself": [member(".", tarfile.DIRTYPE), member("a")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_is_left(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    with pytest.raises(ContentError):
        unpack(archive_of(*HOSTILE[kind]), place / "out")
    assert list(place.iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    info, content = member("a", content=b"x")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a",
        "GNU.sparse.realsize": str(2**40),
    }
    body = b"1\n0\n0\n".ljust(512, b"\0") + content
    info.size = len(body)
    with pytest.raises(ContentError):
        unpack(archive_of((info, body)), tmp_path / "out")


def test_more_members_than_the_bound_are_refused(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = packed(tree)
    monkeypatch.setattr(directory_module, "MAX_MEMBERS", 3)
    with pytest.raises(InputError, match="more than the 3 files"):
        codec_for(tree).prepare(tree)
    with pytest.raises(ContentError, match="more than 3 names"):
        unpack(file, tmp_path / "out")


def test_a_truncated_archive_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    with pytest.raises(ContentError):
        unpack(io.BytesIO(packed(tree).getvalue()[:50_000]), place / "out")
    assert list(place.iterdir()) == []


def test_an_existing_target_is_not_touched(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    with pytest.raises(InputError, match="exists already"):
        unpack(packed(tree), target)
    assert list(target.iterdir()) == []


def test_a_missing_parent_is_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        unpack(packed(tree), tmp_path / "no" / "out")


def test_unsealing_a_directory_without_a_place_asks_for_one(tree: Path) -> None:
    with pytest.raises(InputError, match="say where"):
        codec_named("directory").read(packed(tree), {})


def test_a_file_comes_back_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(os.urandom(3_000_000))
    codec = codec_for(path)
    out = io.BytesIO()
    codec.prepare(path).write(out)
    assert codec_named("file").read(io.BytesIO(out.getvalue()), {}) == path.read_bytes()


def test_a_path_that_is_neither_file_nor_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        codec_for(tmp_path / "missing").prepare(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        codec_for(tmp_path / "pipe").prepare(tmp_path / "pipe")
