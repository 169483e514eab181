"""Key names, key objects and providers."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from sealbook.errors import InputError
from sealbook.sealing import (
    InMemoryKeys,
    KeyProvider,
    KeyUnavailableError,
    SealingKey,
    UnsealError,
    check_key_name,
    default_key_name,
    default_keys,
    open_sealed,
    read_bytes,
    rekey,
    seal_file,
    set_default_keys,
    unseal_file,
    write_bytes,
)
from sealbook.sealing.header import HEADER, encode_slot, rewrap
from sealbook.sealing.progress import byte_progress
from sealbook.sealing.segments import SEGMENT


@pytest.mark.parametrize(
    "name", ["a", "0", "team/data", "a.b_c-d", "session/default", "a" * 64 + "/" + "b" * 64]
)
def test_key_names(name):
    assert check_key_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "a b",
        "a/",
        "/a",
        "a/b/c",
        ".a",
        "-a",
        "a" * 65,
        "a\n",
        "ä",
        "../a",
        "a/../b",
        "a/.b",
        None,
        1,
        b"a",
    ],
)
def test_what_is_no_key_name_is_refused_with_a_sentence(name, tmp_path, keys, plain_file):
    with pytest.raises(InputError, match="is not a key name"):
        check_key_name(name)
    with pytest.raises(InputError, match="is not a key name"):
        SealingKey.generate(name)
    for use in (
        keys.current,
        lambda n: keys.get(n, 1),
        lambda n: seal_file(plain_file, tmp_path / "s", key=n, keys=keys),
    ):
        with pytest.raises(InputError, match="is not a key name"):
            use(name)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("version", [0, -1, 2**31, True, 1.0, "1"])
def test_versions_are_whole_numbers_from_one(version):
    with pytest.raises(InputError, match="version"):
        SealingKey.generate("a", version)


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33, "x" * 32, bytearray(32)])
def test_secrets_are_32_bytes(secret):
    with pytest.raises(InputError, match="32 bytes"):
        SealingKey("a", 1, secret)


def test_a_key_does_not_show_or_give_away_its_secret():
    key = SealingKey("a", 1, b"S" * 32)
    assert "S" * 8 not in repr(key) + str(key) + format(key)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leak(key)
    assert "S" * 8 not in repr(InMemoryKeys(key))


def test_a_file_being_read_or_written_does_not_give_away_its_keys(tmp_path, keys):
    with open_sealed(tmp_path / "s", "wb", key="other", keys=keys) as file:
        assert repr(file._opened.data_key) not in repr(file._opened)
        assert "wrapped" not in repr(file._opened.header)
        with pytest.raises(TypeError):
            pickle.dumps(file)


def test_the_newest_version_seals_and_every_version_unseals(tmp_path, plain_file):
    keys = InMemoryKeys()
    for version in (1, 2, 3):
        assert keys.create("k").version == version
        seal_file(plain_file, tmp_path / str(version), key="k", keys=keys)
    for version in (1, 2, 3):
        only = InMemoryKeys(keys.get("k", version))
        assert read_bytes(tmp_path / str(version), keys=only) == plain_file.read_bytes()


def test_an_absent_key_is_unavailable(keys):
    assert isinstance(keys, KeyProvider)
    for ask in (lambda: keys.current("none"), lambda: keys.get("none", 1), lambda: keys.get("other", 2)):
        with pytest.raises(KeyUnavailableError, match=r"There is no .*key (none|other) here"):
            ask()


def test_a_key_that_is_unavailable_leaves_no_file(tmp_path, plain_file, keys):
    with pytest.raises(KeyUnavailableError):
        seal_file(plain_file, tmp_path / "s", key="none", keys=keys)
    with pytest.raises(KeyUnavailableError):
        open_sealed(tmp_path / "s", "wb", key="none", keys=keys)
    assert not (tmp_path / "s").exists()


def test_a_file_opens_with_any_of_the_keys_it_is_sealed_to(tmp_path, make, opened, read, keys):
    from dataclasses import replace

    from sealbook.sealing.header import HEADER, encode_slot, rewrap

    sealed = make(b"for two")
    one = opened(sealed)
    both = one.header.keys + rewrap(one, keys.current("other"), sequence=0).keys
    sealed = encode_slot(replace(one.header, keys=both), one.data_key) * 2 + sealed[HEADER:]
    for name in ("team/data", "other"):
        assert read(sealed, keys=InMemoryKeys(keys.current(name))) == b"for two"


def test_the_default_provider_is_asked_every_time(no_default_keys):
    with pytest.raises(InputError, match="no sealing keys"):
        default_keys()
    with pytest.raises(InputError, match="Name the key"):
        default_key_name()
    set_default_keys(InMemoryKeys)
    assert default_keys() is not default_keys()
    with pytest.raises(InputError, match="Name the key"):
        default_key_name()
    set_default_keys(InMemoryKeys, key=lambda: "a/b")
    assert default_key_name() == "a/b"


def test_a_provider_that_gives_way_does_not_replace_the_programs_own(no_default_keys):
    own = InMemoryKeys()
    set_default_keys(lambda: own)
    set_default_keys(InMemoryKeys, replace=False)
    assert default_keys() is own


def test_a_progress_bar_appears_only_after_a_second(capfd, tmp_path, plain_file, keys):
    seal_file(plain_file, tmp_path / "s", key="other", keys=keys, progress=True)
    unseal_file(tmp_path / "s", tmp_path / "b", keys=keys, progress=True)
    assert capfd.readouterr().err == ""
    for shown in (True, False):
        bar = byte_progress(1 << 20, what="Sealing", shown=shown)
        bar.start_t = time.time() - 2
        bar.update(1 << 19)
        bar.close()
        assert ("Sealing:" in capfd.readouterr().err) == shown


MEMORY = textwrap.dedent("""
    import re, sys
    from pathlib import Path
    from sealbook.sealing import *

    def most():
        # Not ru_maxrss: a child begins with its parent's.
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    keys = InMemoryKeys(SealingKey("k", 1, b"k" * 32))
    before = most()
    for threads in (1, 2, 4):
        seal_file(sys.argv[1], sys.argv[2], key="k", keys=keys, threads=threads)
        unseal_file(sys.argv[2], sys.argv[3], keys=keys, threads=threads)
    file, out = open_sealed(sys.argv[2], keys=keys), open_sealed(sys.argv[3], "wb", key="k", keys=keys)
    with file, out:
        while piece := file.read(1 << 16):
            out.write(piece)
    print(most() - before)
""")


def test_memory_does_not_grow_with_the_file(tmp_path):
    with (tmp_path / "plain").open("wb") as file:
        file.truncate(300 * SEGMENT)
    paths = [tmp_path / name for name in ("plain", "sealed", "back")]
    done = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, check=True)
    # Not nothing either: the buffers are there to be seen.
    assert 16 < float(done.stdout) <= 64


def test_a_file_that_is_sealed_to_another_key_is_refused_before_that_key_is_asked_for(tmp_path, keys):
    asked = []

    class Asked:
        """Notes which keys are wanted."""

        def get(self, name, version):
            asked.append(name)
            return keys.get(name, version)

    write_bytes(tmp_path / "f", b"text", key="team/data", keys=keys)
    with pytest.raises(UnsealError):
        read_bytes(tmp_path / "f", keys=Asked(), key="other")
    assert asked == []
    assert read_bytes(tmp_path / "f", keys=Asked(), key="team/data") == b"text"
    keys.create("team/data")  # the next version
    assert read_bytes(tmp_path / "f", keys=keys, key="team/data") == b"text"
    rekey(tmp_path / "f", keys=keys, to="other")
    assert read_bytes(tmp_path / "f", keys=keys, key="other") == b"text"
    for call in (
        lambda: read_bytes(tmp_path / "f", keys=keys, key="team/data"),
        lambda: unseal_file(tmp_path / "f", tmp_path / "out", keys=keys, key="team/data"),
        lambda: open_sealed(tmp_path / "f", keys=keys, key="team/data"),
    ):
        with pytest.raises(UnsealError):
            call()
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="not a key name"):
        read_bytes(tmp_path / "f", keys=keys, key="Bad Name")


def test_the_name_that_is_insisted_on_cannot_be_written_into_the_header(tmp_path, keys):
    write_bytes(tmp_path / "f", b"text", key="other", keys=keys)
    raw = (tmp_path / "f").read_bytes()
    forged = raw.replace(b'"key":"other"', b'"key":"third"')
    assert forged != raw
    (tmp_path / "f").write_bytes(forged)
    third = InMemoryKeys(
        SealingKey("third", 1, keys.get("other", 1).secret)
    )  # even with the very same secret
    with pytest.raises(UnsealError):
        read_bytes(tmp_path / "f", keys=third, key="third")


def test_a_file_that_is_sealed_to_further_keys_is_not_sealed_to_the_one_insisted_on(keys, make, read, opened):
    sealed = make()
    header = opened(sealed)
    second = rewrap(header, keys.current("other"), sequence=0).keys
    both = encode_slot(replace(header.header, keys=header.header.keys + second), header.data_key)
    sealed = both * 2 + sealed[HEADER:]
    assert read(sealed) == read(make())
    for key in ("team/data", "other"):
        with pytest.raises(UnsealError):
            read(sealed, key=key)
