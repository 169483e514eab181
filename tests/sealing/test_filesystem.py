"""``sealed::`` works where fsspec URLs do: pandas, pyarrow, other stores, transactions."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from sealbook.errors import InputError
from sealbook.pandas_urls import accept_sealed_urls
from sealbook.sealing import InMemoryKeys, UnsealError, inspect, read_bytes, set_default_keys
from sealbook.sealing.filesystem import SealedFileSystem
from sealbook.sealing.segments import SEGMENT

pytestmark = pytest.mark.usefixtures("default_keys")


@pytest.fixture(params=["local", "local, short", "chained local", "memory"])
def url(request, tmp_path, memory):
    return {
        "local": f"sealed://{tmp_path}/",
        "local, short": f"sealed::{tmp_path}/",
        "chained local": f"sealed://::file://{tmp_path}/",
        "memory": "sealed://::memory://bucket/",
    }[request.param]


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    yield store
    # One store for the whole process.
    store.store.clear()
    store.pseudo_dirs[:] = [""]


FRAME = pd.DataFrame({"n": np.arange(200_000), "x": np.random.default_rng(1).random(200_000)})


def test_pandas_writes_and_reads_sealed_parquet_and_csv(url):
    accept_sealed_urls()
    FRAME.to_parquet(url + "f.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(url + "f.parquet"), FRAME)
    assert pd.read_parquet(url + "f.parquet", columns=["n"]).shape == (200_000, 1)
    FRAME[:50].to_csv(url + "f.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(url + "f.csv"), FRAME[:50])
    fs, path = fsspec.url_to_fs(url)
    raw = fs.fs.cat_file(f"{path}/f.csv")
    assert raw.startswith(b"SEALBOOK")
    assert b"n,x" not in raw


def test_pandas_takes_sealed_paths_for_urls_whenever_it_is_loaded(tmp_path):
    code = """if True:
    import sys
    from sealbook.sealing import InMemoryKeys, SealingKey, set_default_keys
    from sealbook.pandas_urls import accept_sealed_urls
    keys = InMemoryKeys(SealingKey("k", 1, b"k" * 32))
    set_default_keys(lambda: keys, key=lambda: "k")
    waiting = len(sys.meta_path)  # importing sealbook has called it once
    accept_sealed_urls()
    assert len(sys.meta_path) == waiting
    assert "pandas" not in sys.modules
    import pandas as pd
    assert len(sys.meta_path) == waiting - 1
    pd.DataFrame({"a": [1]}).to_csv("sealed::" + sys.argv[1])
    print(pd.read_csv("sealed::" + sys.argv[1])["a"][0])
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "f.csv"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert inspect(tmp_path / "f.csv").codec == "file"


def test_pyarrow_writes_and_reads_sealed_datasets(url):
    fs, root = fsspec.url_to_fs(url)
    table = pa.table({"n": list(range(1000)), "part": ["a", "b"] * 500})
    pa.dataset.write_dataset(table, f"{root}/set", filesystem=fs, format="parquet", partitioning=["part"])
    back = pa.dataset.dataset(f"{root}/set", filesystem=fs, format="parquet", partitioning=["part"])
    assert back.count_rows() == 1000
    assert sorted(back.to_table()["n"].to_pylist()) == list(range(1000))


def test_sizes_are_those_of_the_plaintext(url):
    fs, root = fsspec.url_to_fs(url)
    fs.pipe_file(f"{root}/a", b"x" * 5000)
    about = fs.info(f"{root}/a")
    assert (about["size"], about["sealed"], about["sealed_size"]) == (5000, True, 8192 + 40 + 5000 + 16)
    assert [(e["size"], e["sealed"]) for e in fs.ls(root)] == [(5000, True)]
    assert [name.endswith("/a") for name in fs.ls(root, detail=False)] == [True]
    assert fs.size(f"{root}/a") == 5000
    assert fs.cat_file(f"{root}/a", start=10, end=20) == b"x" * 10
    # A file that is not sealed is listed as it is, and not opened.
    fs.fs.pipe_file(f"{root}/b", b"y" * 9000)
    assert fs.info(f"{root}/b")["size"] == 9000
    assert not fs.info(f"{root}/b")["sealed"]
    with pytest.raises(InputError, match="not a file sealed"):
        fs.cat_file(f"{root}/b")


def test_files_are_moved_copied_and_deleted_as_they_are(url):
    fs, root = fsspec.url_to_fs(url)
    fs.makedirs(f"{root}/d/e", exist_ok=True)
    fs.pipe_file(f"{root}/d/e/a", b"content")
    fs.copy(f"{root}/d/e/a", f"{root}/d/b")
    fs.mv(f"{root}/d/b", f"{root}/d/c")
    assert fs.cat_file(f"{root}/d/c") == b"content"
    assert not fs.exists(f"{root}/d/b")
    assert sorted(name.rsplit("/", 1)[1] for name in fs.find(root)) == ["a", "c"]
    assert fs.modified(f"{root}/d/c")
    assert fs.created(f"{root}/d/c")
    fs.rm(f"{root}/d/c")
    assert not fs.exists(f"{root}/d/c")
    fs.rm(f"{root}/d", recursive=True)
    assert not fs.exists(f"{root}/d/e/a")
    fs.mkdir(f"{root}/empty")
    fs.rmdir(f"{root}/empty")
    assert not fs.exists(f"{root}/empty")


def test_put_seals_and_get_unseals(url, tmp_path):
    fs, root = fsspec.url_to_fs(url)
    (tmp_path / "plain").write_bytes(b"p" * 100)
    fs.put_file(str(tmp_path / "plain"), f"{root}/s")
    assert fs.fs.cat_file(f"{root}/s").startswith(b"SEALBOOK")
    fs.get_file(f"{root}/s", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"p" * 100


def test_text_mode_works(url):
    with fsspec.open(url + "t.txt", "w", encoding="utf-8") as file:
        file.write("äöü\nline")
    with fsspec.open(url + "t.txt", "r", encoding="utf-8") as file:
        assert file.readlines() == ["äöü\n", "line"]


def test_an_exception_while_writing_leaves_the_old_file_and_no_other(url):
    fs, root = fsspec.url_to_fs(url)
    fs.pipe_file(f"{root}/a", b"old")
    with pytest.raises(ZeroDivisionError), fs.open(f"{root}/a", "wb") as file:
        file.write(bytes(2 * SEGMENT))
        raise ZeroDivisionError
    assert fs.cat_file(f"{root}/a") == b"old"
    assert len(fs.ls(root)) == 1


def test_nothing_has_the_name_before_the_file_is_complete(url):
    fs, root = fsspec.url_to_fs(url)
    with fs.open(f"{root}/a", "wb") as file:
        file.write(bytes(2 * SEGMENT))
        assert not fs.exists(f"{root}/a")
    assert fs.size(f"{root}/a") == 2 * SEGMENT


def test_transactions_give_all_names_at_the_end_or_none(url):
    fs, root = fsspec.url_to_fs(url)
    with fs.transaction:
        for name in "ab":
            with fs.open(f"{root}/{name}", "wb") as file:
                file.write(b"content")
            assert not fs.exists(f"{root}/{name}")
    assert fs.cat_file(f"{root}/a") == fs.cat_file(f"{root}/b") == b"content"
    with pytest.raises(ZeroDivisionError), fs.transaction:
        with fs.open(f"{root}/c", "wb") as file:
            file.write(b"content")
        raise ZeroDivisionError
    assert sorted(name.rsplit("/", 1)[1] for name in fs.ls(root, detail=False)) == ["a", "b"]


def test_keys_key_and_context_are_taken_from_the_storage_options(tmp_path):
    set_default_keys(None)
    keys = InMemoryKeys()
    keys.create("mine")
    options = {"keys": keys, "key": "mine", "context": {"study": "A"}}
    url = f"sealed://{tmp_path}/f.parquet"
    FRAME.to_parquet(url, storage_options=options)
    assert inspect(tmp_path / "f.parquet").keys == (("mine", 1),)
    pd.testing.assert_frame_equal(pd.read_parquet(url, storage_options=options), FRAME)
    with pytest.raises(UnsealError):
        pd.read_parquet(url, storage_options=options | {"context": {"study": "B"}})
    with pytest.raises(InputError, match="no sealing keys"):
        pd.read_parquet(url)
    with pytest.raises(InputError, match="Name the key"):
        FRAME.to_csv(f"sealed://{tmp_path}/g.csv", storage_options={"keys": keys})
    assert os.listdir(tmp_path) == ["f.parquet"]


def test_a_key_in_the_storage_options_is_insisted_on_when_reading(tmp_path):
    FRAME.to_csv(f"sealed://{tmp_path}/a.csv", storage_options={"key": "other"})
    assert len(pd.read_csv(f"sealed://{tmp_path}/a.csv", storage_options={"key": "other"})) == len(FRAME)
    with pytest.raises(UnsealError):
        pd.read_csv(f"sealed://{tmp_path}/a.csv", storage_options={"key": "team/data"})


#: What a host would like to choose for an enclave.
HOSTILE = {"key": "other", "context": {"from": "host"}, "target_protocol": "memory", "fo": "/", "keys": "x",
           "target_options": {"x": 1}, "skip_instance_cache": True, "fs": "x", "dircache": 1}  # fmt: skip


@pytest.mark.parametrize("how", ["one variable", "a variable each", "json", "ini"])
def test_the_environment_and_files_of_the_host_configure_nothing(tmp_path, how):
    (tmp_path / "conf").mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FSSPEC_CONFIG_DIR": f"{tmp_path}/conf"}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in HOSTILE.items()}
    if how == "one variable":
        environment["FSSPEC_SEALED"] = json.dumps(HOSTILE)
    elif how == "a variable each":
        environment |= {f"FSSPEC_SEALED_{name.upper()}": text for name, text in texts.items()}
    elif how == "json":
        (tmp_path / "conf" / "x.json").write_text(json.dumps({"sealed": HOSTILE}))
    else:
        lines = "".join(f"{name} = {text}\n" for name, text in texts.items())
        (tmp_path / "conf" / "x.ini").write_text(f"[sealed]\n{lines}")
    code = """if True:
    import os, sys
    import fsspec
    from fsspec.implementations.local import LocalFileSystem
    from sealbook.sealing import InMemoryKeys, inspect, set_default_keys
    from sealbook.sealing.filesystem import SealedFileSystem
    fsspec.register_implementation("sealed", SealedFileSystem, clobber=True)
    keys = InMemoryKeys()
    for name in ("mine", "explicit", "other"):
        keys.create(name)
    set_default_keys(lambda: keys, key=lambda: "mine")
    assert fsspec.config.conf["sealed"]["key"] == "other"  # so that this test tests something
    directory = sys.argv[1]
    explicit = {"key": "explicit", "context": {"a": "b"}}
    for number, (options, url) in enumerate([
        ({}, "sealed://"), ({}, "sealed::"), ({}, "sealed://::file://"),
        (explicit, "sealed://"), ({"sealed": explicit}, "sealed://::file://"),
    ]):
        path = f"{directory}/{number}"
        with fsspec.open(url + path, "wb", **options) as file:
            file.write(b"content")
        about = inspect(path)
        wanted = ("explicit", {"a": "b"}) if options else ("mine", {})
        assert (about.keys[0][0], dict(about.context)) == wanted, (number, about)
        with fsspec.open(url + path, "rb", **options) as file:
            assert file.read() == b"content"
    for fs in (fsspec.filesystem("sealed"), SealedFileSystem(), fsspec.url_to_fs("sealed:///x")[0]):
        assert isinstance(fs.fs, LocalFileSystem)
        assert (fs._key, fs._keys, fs._context, fs.storage_options) == (None, None, None, {})
    print("ok")
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "ok\n", done.stderr


def test_an_instance_is_what_fsspec_expects_of_one():
    options = {"key": "other", "context": {"a": "b"}}
    fs = SealedFileSystem(**options, skip_instance_cache=True)
    assert fs.storage_options == options
    assert fs == SealedFileSystem(**options)
    assert fs != SealedFileSystem()
    assert len({fs, SealedFileSystem(**options)}) == 1
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301 - our own, as dask does
    assert (again, again._key, again._context) == (fs, "other", {"a": "b"})
    assert fsspec.AbstractFileSystem.from_json(fs.to_json())._key == "other"


def test_a_provider_is_asked_at_every_opening_not_kept(tmp_path, keys):
    fs = SealedFileSystem()
    fs.pipe_file(f"{tmp_path}/a", b"x")
    assert SealedFileSystem() is not SealedFileSystem()
    set_default_keys(InMemoryKeys)
    with pytest.raises(Exception, match="no version 1 of key team/data"):
        fs.cat_file(f"{tmp_path}/a")


def test_tampered_files_are_refused_through_pandas_too(tmp_path):
    path = tmp_path / "f.parquet"
    FRAME.to_parquet(f"sealed://{path}")
    raw = bytearray(path.read_bytes())
    raw[8192 + SEGMENT + 7] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UnsealError):
        pd.read_parquet(f"sealed://{path}")


def test_a_missing_file_is_one_to_python_as_well(url):
    fs, root = fsspec.url_to_fs(url)
    with pytest.raises(FileNotFoundError, match="none"):
        fs.open(f"{root}/none")
    with pytest.raises(FileNotFoundError):
        pd.read_csv(url.replace("sealed::/", "sealed:///") + "none.csv")


def test_other_modes_and_directories_are_refused(url):
    fs, root = fsspec.url_to_fs(url)
    fs.makedirs(f"{root}/d", exist_ok=True)
    for mode in ("ab", "r+b", "xb"):
        with pytest.raises(InputError, match="written whole"):
            fs.open(f"{root}/x", mode)
    with pytest.raises(InputError, match="is a directory"):
        fs.open(f"{root}/d", "wb")
    assert [entry["name"].rsplit("/", 1)[1] for entry in fs.ls(root)] == ["d"]


class Remote(MemoryFileSystem):
    """A store whose files are fetched in ranges, as object stores do; it counts the bytes."""

    protocol = "remote"
    cachable = False

    def __init__(self):
        super().__init__()
        self.fetched = 0

    def _open(self, path, mode="rb", **options):
        if mode != "rb":
            return super()._open(path, mode, **options)
        store = self

        class File(AbstractBufferedFile):
            def _fetch_range(self, start, end):
                store.fetched += end - start
                return store.cat_file(path, start, end)

        options.pop("autocommit", None)
        return File(self, path, mode, size=len(self.cat_file(path)), **options)

    def cat_file(self, path, start=None, end=None, **_):
        return self.store[self._strip_protocol(path)].getvalue()[start:end]


def test_parquet_reads_only_the_segments_it_needs(memory):
    wide = pd.DataFrame({f"c{i}": np.random.default_rng(i).random(400_000) for i in range(10)})
    store = Remote()
    fs = SealedFileSystem(store)
    with fs.open("/w.parquet", "wb") as file:
        wide.to_parquet(file, row_group_size=400_000)
    assert fs.info("/w.parquet")["sealed_size"] > 24 * SEGMENT
    with fs.open("/w.parquet") as file:
        column = pq.read_table(file, columns=["c3"])
    assert column["c3"].to_numpy().tolist() == wide["c3"].tolist()
    # The last segment twice, at opening and for the footer; the column's 3 MB and dictionary.
    assert 3 * SEGMENT < store.fetched <= 8 * SEGMENT


def test_a_sealed_file_of_the_filesystem_is_an_ordinary_one(tmp_path, keys):
    fs, path = fsspec.url_to_fs(f"sealed://{tmp_path}/f")
    fs.pipe_file(path, b"same format")
    assert read_bytes(tmp_path / "f", keys=keys) == b"same format"
