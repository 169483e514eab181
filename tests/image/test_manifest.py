"""Manifests are rendered: safe in both ways to work, and no value is anything but a value."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbook.image import manifest
from sealbook.image.build import ENVIRONMENT
from sealbook.image.lint import lint
from sealbook.image.roles import KERNEL

CONTENT = manifest.Content(
    name="kernel",
    entrypoint="/python/bin/python3",
    argv=KERNEL.argv,
    environment=ENVIRONMENT,
    libos="gramine/libsysdb.so",
    work="host",
    enclave_size="64G",
    trusted={
        "gramine/libsysdb.so": "0" * 64,
        "root/python/bin/python3": "1" * 64,
        "root/python/lib/python311.zip": "2" * 64,
        "root/bin/sh": "3" * 64,
        f"root/{manifest.EMPTY}": "5" * 64,
        "root/lib/libc.so.6": "4" * 64,
    },
)


@pytest.mark.parametrize("work", ["host", "encrypted"])
def test_what_is_rendered_has_nothing_unsafe(work):
    assert lint(tomllib.loads(manifest.render(replace(CONTENT, work=work)))) == []


def test_the_notebooks_directory_is_allowed_or_encrypted_and_never_both():
    host, encrypted = (
        tomllib.loads(manifest.render(replace(CONTENT, work=work))) for work in ("host", "encrypted")
    )
    assert host["sgx"]["allowed_files"] == ["file:launch/registration", "file:work/"]
    assert encrypted["sgx"]["allowed_files"] == ["file:launch/registration"]
    mounts = {mount["path"]: mount for mount in encrypted["fs"]["mounts"]}
    assert mounts["/work"] == {"type": "encrypted", "path": "/work", "uri": "file:work", "key_name": "work"}


def test_the_library_os_is_measured_as_the_entrypoint_and_not_as_a_file():
    parsed = tomllib.loads(manifest.render(CONTENT))
    entry = {"uri": "file:image/gramine/libsysdb.so", "sha256": "0" * 64}
    assert parsed["loader"]["entrypoint"] == entry
    assert entry not in parsed["sgx"]["trusted_files"]
    assert len(parsed["sgx"]["trusted_files"]) == 5


def test_the_order_of_what_is_given_does_not_show():
    turned = replace(
        CONTENT,
        trusted=dict(reversed(CONTENT.trusted.items())),
        environment=dict(reversed(CONTENT.environment.items())),
    )
    assert manifest.render(turned) == manifest.render(CONTENT)


#: What a file of a wheel can be called, and a value can be.
TEXT = st.text(
    st.one_of(
        st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"),
        st.sampled_from("\"'\\\n\r\t{}[]=#\x7f\x80\u2028%"),
    ),
    min_size=1,
    max_size=30,
)


@given(value=TEXT)
def test_every_value_stays_a_string(value):
    changed = replace(
        CONTENT,
        entrypoint=value,
        argv=[value, value],
        environment={"KEY": value},
        trusted=CONTENT.trusted | {f"root/{value}": value},
    )
    parsed = tomllib.loads(manifest.render(changed))
    assert parsed["libos"]["entrypoint"] == value
    assert parsed["loader"]["argv"] == [value, value]
    assert parsed["loader"]["env"] == {"KEY": value}
    assert {"uri": f"file:image/root/{value}", "sha256": value} in parsed["sgx"]["trusted_files"]
    # And nothing beside it was said.
    plain = tomllib.loads(manifest.render(CONTENT))
    for table in ("loader", "env", "argv", "libos", "trusted_files"):
        for each in (parsed, plain):
            each.get("sgx", {}).pop(table, None)
            each.get("loader", {}).pop(table, None)
            each.pop(table, None)
    assert parsed == plain


# -- what is measured ------------------------------------------------------------------------------


def test_every_file_of_the_tree_is_hashed_by_its_place(tmp_path):
    files = {"gramine/libsysdb.so": b"os", "root/a": b"", "root/deep/er/file with spaces": b"\0" * 100000}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "root/empty").mkdir()
    (tmp_path / "kernel.manifest").write_text("not measured by itself")
    assert manifest.hash_tree(tmp_path) == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }


def test_hidden_files_are_hashed_too(tmp_path):
    for name in ("root/.code/x.zip", "root/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert set(manifest.hash_tree(tmp_path)) == {"root/.code/x.zip", "root/.hidden"}


def test_a_tree_that_is_not_there_has_no_files(tmp_path):
    assert manifest.hash_tree(Path(tmp_path / "none")) == {}
