"""`sealed://` as Hadoop's programs use it: reading here and there, writing whole files or none, listing."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from java_side import Lab
from sealbook import sealing
from sealbook.sealing import InMemoryKeys, segments


@pytest.fixture
def keys(lab: Lab) -> InMemoryKeys:
    keys = InMemoryKeys()
    lab.use(keys.create("one"))
    return keys


@pytest.fixture
def small_disk(build: Any, class_path: str, keys: InMemoryKeys) -> Iterator[Lab]:
    lab = Lab(build.find_tool("java"), class_path, longest_file=3 << 20)
    lab.use(keys.current("one"))
    yield lab
    lab.close()


def data_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("how", [{}, {"seek": True}], ids=["positioned", "seeking"])
def test_any_range_is_what_was_sealed_there(
    how: dict[str, bool], lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    size = 3 * segments.SEGMENT + 77
    data = data_of(size)
    sealing.write_bytes(tmp_path / "data", data, key="one", keys=keys)
    edge = segments.FIRST
    ranges = [
        *(
            [0, 1],
            [size - 1, 1],
            [0, size],
            [edge - 1, 2],
            [edge, segments.REST],
            [edge - 5, segments.REST + 9],
        ),
        *([random.Random(i).randrange(size - 5000), 5000] for i in range(40)),
    ]
    said = lab.read(tmp_path / "data", ranges=ranges, **how)
    assert said["pieces"] == [data[at : at + length] for at, length in ranges]
    beyond = lab.read(tmp_path / "data", ranges=[[size - 1, 2]], **how)
    assert beyond["error"] == "EOFException"


def test_vectored_reads_decrypt_only_what_they_touch(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    data = data_of(8 * segments.SEGMENT)
    sealing.write_bytes(tmp_path / "data", data, key="one", keys=keys)
    ranges = [[10, 1000], [2 * segments.SEGMENT + 100, 2000], [2 * segments.SEGMENT + 50_000, 10]]
    said = lab.read(tmp_path / "data", vectored=ranges)
    assert said["pieces"] == [data[at : at + length] for at, length in ranges]
    assert said["segments"] == 3  # two, and the last one at opening


def test_steps_within_a_few_segments_decrypt_each_once(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    data = data_of(8 * segments.SEGMENT)
    sealing.write_bytes(tmp_path / "data", data, key="one", keys=keys)
    there_and_back = [[at * segments.SEGMENT + i, 7] for i in range(0, 5000, 100) for at in (1, 4, 6)]
    said = lab.read(tmp_path / "data", ranges=there_and_back)
    assert said["segments"] <= 5


def test_a_full_disk_leaves_nothing_under_the_name(
    small_disk: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    said = small_disk.write(f"sealed://one{tmp_path}/data", data_of(5 << 20), piece=1 << 20)
    assert "error" in said
    assert list(tmp_path.iterdir()) == []
    # The same, closed by who does not look: nothing is published then either.
    said = small_disk.write(f"sealed://one{tmp_path}/data", data_of(5 << 20), piece=1 << 20, stubborn=True)
    assert "was not written" in said["message"]
    assert list(tmp_path.iterdir()) == []
    assert small_disk.write(f"sealed://one{tmp_path}/data", b"short") == {}
    assert sealing.read_bytes(tmp_path / "data", keys=keys) == b"short"


@pytest.mark.parametrize("end", ["abort", "leave"])
def test_what_is_not_closed_has_no_name_and_is_not_listed(
    end: str, lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    data = b"SECRET-CONTENT" * 100_000
    lab.write(f"sealed://one{tmp_path}/data", data, end=end)
    left = list(tmp_path.iterdir())
    assert len(left) == (0 if end == "abort" else 1)
    assert all(b"SECRET-CONTENT" not in path.read_bytes() for path in left)
    assert all(not path.read_bytes().startswith(b"SEALBOOK") for path in left)
    assert lab.ask("list", path=f"sealed://{tmp_path}") == {"entries": {}}


def test_writing_over_a_file_needs_to_be_asked_for(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    target = f"sealed://one{tmp_path}/data"
    assert lab.write(target, b"first") == {}
    assert lab.write(target, b"second", overwrite=False)["error"] == "FileAlreadyExistsException"
    assert sealing.read_bytes(tmp_path / "data", keys=keys) == b"first"
    assert lab.write(target, b"second", overwrite=True) == {}
    assert sealing.read_bytes(tmp_path / "data", keys=keys) == b"second"
    assert lab.write(f"sealed://one{tmp_path}/new", b"third", overwrite=False) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "new"]


@pytest.mark.parametrize("do", ["append", "truncate"])
def test_what_sealed_files_cannot_is_refused(do: str, lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    sealing.write_bytes(tmp_path / "data", b"content", key="one", keys=keys)
    said = lab.ask(do, path=f"sealed://{tmp_path}/data")
    assert said["error"] == "UnsupportedOperationException"
    assert sealing.read_bytes(tmp_path / "data", keys=keys) == b"content"


def test_names_move_and_go_as_on_the_disk(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    sealing.write_bytes(tmp_path / "a", b"content", key="one", keys=keys)
    assert lab.ask("mkdirs", path=f"sealed://{tmp_path}/d/e") == {"done": True}
    assert lab.ask("rename", path=f"sealed://{tmp_path}/a", to=f"sealed://{tmp_path}/d/b") == {"done": True}
    assert lab.ask("list", path=f"sealed://{tmp_path}/d") == {"entries": {"b": 7, "e": -1}}
    assert sealing.read_bytes(tmp_path / "d" / "b", keys=keys) == b"content"
    assert lab.ask("delete", path=f"sealed://{tmp_path}/d", recursive=True) == {"done": True}
    assert list(tmp_path.iterdir()) == []
    assert lab.read(tmp_path / "d")["error"] == "FileNotFoundException"


def test_a_pipe_is_refused_and_not_waited_for(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert lab.read(tmp_path / "pipe")["error"] == "PathException"
    assert lab.ask("list", path=f"sealed://{tmp_path}")["error"] == "PathException"


def test_a_file_cut_to_nothing_shows_in_the_listing_also_in_a_partition_by_a_hidden_name(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    for directory in ("plain", "_day=1"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "part-0").write_bytes(b"")
        said = lab.ask("list", path=f"sealed://{tmp_path}/{directory}")
        assert said["error"] == "NotSealedException", directory
    (tmp_path / "_logs").mkdir()
    (tmp_path / "_logs" / "x").write_bytes(b"")
    assert lab.ask("list", path=f"sealed://{tmp_path}/_logs") == {"entries": {"x": 0}}


def test_an_empty_file_is_a_file(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    lab.write(f"sealed://one{tmp_path}/empty", b"")
    assert lab.ask("list", path=f"sealed://{tmp_path}") == {"entries": {"empty": 0}}
    assert lab.read(tmp_path / "empty")["data"] == b""


def test_where_the_url_names_a_key_both_slots_of_the_header_have_that_key_and_no_other(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    keys.create("other")
    lab.use(*(keys.current(name) for name in ("one", "other")))
    path = tmp_path / "file"
    sealing.write_bytes(path, b"content", key="one", keys=keys)
    before = path.read_bytes()[:4096]
    sealing.rekey(path, keys=keys, to="other")
    after = path.read_bytes()
    assert lab.read(f"sealed://other{path}")["data"] == b"content"
    path.write_bytes(before + after[4096:])  # a rotation that was cut short
    assert lab.read(path)["data"] == b"content"
    for key in ("other", "one"):
        said = lab.read(f"sealed://{key}{path}")
        assert said["error"] == "OtherKeyException"
        assert f"is not sealed to key {key} alone" in said["message"]
        assert (said["message"].count(". "), said["message"][-1]) == (0, ".")


def test_a_key_that_the_url_names_has_every_version(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "file"
    sealing.write_bytes(path, b"content", key="one", keys=keys)
    keys.create("one")
    lab.use(keys.get("one", 1), keys.get("one", 2))
    assert lab.read(f"sealed://one{path}")["data"] == b"content"
    sealing.rekey(path, keys=keys, to="one")
    assert lab.read(f"sealed://one{path}")["data"] == b"content"


def test_nobody_asks_for_a_key_that_the_url_does_not_name(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    other = InMemoryKeys()
    other.create("elsewhere")
    sealing.write_bytes(tmp_path / "file", b"content", key="elsewhere", keys=other)
    assert lab.read(f"sealed://one{tmp_path}/file")["error"] == "OtherKeyException"


def entry(path: Path | str) -> bytes:
    return f'{{"path":"{path}","size":1,"isDir":false,"action":"add"}}'.encode()


def put_log(table: Path, name: str, keys: InMemoryKeys, *lines: bytes) -> Path:
    (table / "_spark_metadata").mkdir(parents=True, exist_ok=True)
    path = table / "_spark_metadata" / name
    sealing.write_bytes(path, b"\n".join([b"v1", *lines]), key="one", keys=keys)
    return path


@pytest.mark.parametrize("name", ["0", "9.compact"])
def test_a_streams_log_is_looked_through_to_its_end_before_anything_of_it_is_read(
    name: str, lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    table = tmp_path / "t"
    own = [entry(f"sealed:{table}/day=1/part-{i}") for i in range(20_000)]  # more than a segment
    path = put_log(table, name, keys, *own)
    assert lab.read(path)["data"] == b"\n".join([b"v1", *own])
    for other in (
        f"sealed://one{table}/day=1/part-x",
        f"sealed:{table}-2/part-x",
        f"sealed:{tmp_path}/part-x",
        f"file:{table}/part-x",
        f"{table}/part-x",
    ):
        said = lab.read(put_log(table, name, keys, *own, entry(other)))
        assert said["error"] == "PathException", other
        assert f"sealed://{table} was written by a stream as " in said["message"]
        assert "data" not in said
    for line in (b"", b"{}", b"[]", entry("%"), entry("mailto:x"), b'{"path":"' + b"a" * (1 << 16) + b'"}'):
        said = lab.read(put_log(table, name, keys, *own, line, b""))
        assert said["error"] == "PathException", line[:20]
        assert "is not a stream's log" in said["message"]


def test_the_newest_of_a_streams_log_that_lists_anything_says_whose_it_is(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    table = tmp_path / "t"
    for name, lines in {
        "2": [entry(f"sealed:{table}/a")],
        "9.compact": [entry(f"sealed://one{table}/a")],
        "10": [],
    }.items():
        put_log(table, name, keys, *lines)
    assert lab.ask("list", path=f"sealed://{table}/_spark_metadata")["error"] == "PathException"
    assert len(lab.ask("list", path=f"sealed://one{table}/_spark_metadata")["entries"]) == 3
    # Each file speaks for itself when it is read.
    assert lab.read(f"sealed://one{table}/_spark_metadata/9.compact")["data"]
    assert lab.read(f"sealed://one{table}/_spark_metadata/10")["data"] == b"v1"
    assert lab.read(f"sealed://one{table}/_spark_metadata/2")["error"] == "PathException"
