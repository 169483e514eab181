"""What keeps an image from being run, each in one sentence that names it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from gramine_stand_in import GramineStandIn, sigstruct, small_image
from sealbook.errors import InputError, MissingDependencyError, RefusedError
from sealbook.image import Image
from sealbook.image.image import BUILT_TIME
from sealbook.image.lint import lint

TEES = ("gramine-direct", "gramine-sgx")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, signing_key: Path) -> Path:
    place = tmp_path_factory.mktemp("built")
    with GramineStandIn(place / "gramine").on_path():
        return small_image(place / "image", key=signing_key).path


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    """A signed image that a test may change."""
    return shutil.copytree(built, tmp_path / "image", symlinks=True)


def problems(path: Path, tee: str = "gramine-sgx") -> list[str]:
    found = Image.open(path).problems(tee)
    for sentence in found:
        assert "\n" not in sentence
        assert sentence.endswith(".")
    return found


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.chmod(0o644)
    file.write_text(text.replace(old, new))


def overwrite(file: Path, content: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(content)


# -- whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tee", TEES)
def test_a_whole_image_has_no_problems(path, tee, stand_in):
    assert problems(path, tee) == []
    assert lint(Image.open(path).manifest(tee)) == []
    Image.open(path).check_runnable("gramine-direct")


def test_an_image_that_was_copied_without_its_times_is_still_the_same(built, tmp_path):
    shutil.copytree(built, tmp_path / "copy", copy_function=shutil.copyfile)
    assert (tmp_path / "copy/root/bin/sh").stat().st_mtime != BUILT_TIME
    assert problems(tmp_path / "copy") == []


def test_an_image_may_be_reached_by_a_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert problems(tmp_path / "link") == []


# -- changed files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tee", TEES)
@pytest.mark.parametrize("file", ["root/bin/sh", "root/python/bin/python3", "gramine/libsysdb.so"])
def test_a_changed_file_is_named_even_if_it_has_the_same_size(path, file, tee):
    target = path / file
    overwrite(target, bytes([target.read_bytes()[0] ^ 1]) + target.read_bytes()[1:])
    (sentence,) = problems(path, tee)
    assert sentence.startswith(f"{target} has another content since the image was built")
    assert "`sealbook image build --force`" in sentence


@pytest.mark.parametrize("file", ["root/bin/sh", "gramine/libsysdb.so"])
def test_a_missing_file_is_named(path, file):
    (path / file).unlink()
    (sentence,) = problems(path)
    assert sentence.startswith(f"{path / file} No such file or directory since the image was built")


def test_a_file_that_became_a_directory_is_named(path):
    (path / "root/bin/sh").unlink()
    (path / "root/bin/sh").mkdir()
    os.utime(path / "root/bin/sh", (BUILT_TIME, BUILT_TIME))
    assert str(path / "root/bin/sh") in problems(path)[0]


def test_a_file_that_became_a_link_to_another_content_is_named(path, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("evil")
    (path / "root/bin/sh").unlink()
    (path / "root/bin/sh").symlink_to(outside)
    os.utime(outside, (BUILT_TIME, BUILT_TIME))
    os.utime(path / "root/bin/sh", (BUILT_TIME, BUILT_TIME), follow_symlinks=False)
    assert problems(path)[0].startswith(f"{path / 'root/bin/sh'} has another content")


@pytest.mark.parametrize(
    "uri",
    [
        "file:image/../outside",
        "file:image/root/../../outside",
        "file:outside",
        "file:/etc/passwd",
        "file:work/x",
        "file:",
        "dev:/dev/sgx",
        "",
    ],
)
def test_a_manifest_that_measures_what_is_outside_is_refused(path, uri):
    edit(path / "kernel.manifest", '"file:image/root/bin/sh"', json.dumps(uri))
    with pytest.raises(RefusedError, match="which is outside of the image"):
        Image.open(path).check_unchanged("gramine-direct")


@pytest.mark.parametrize("value", ['"file:image/a\\u0000b"', '"file:image/' + "x" * 5000 + '"'])
def test_a_name_that_no_file_can_have_is_a_sentence(path, value):
    edit(path / "kernel.manifest", '"file:image/root/bin/sh"', value)
    with pytest.raises(RefusedError, match=r"cannot be read|File name too long"):
        Image.open(path).check_unchanged("gramine-direct")


@pytest.mark.parametrize("tee", TEES)
def test_a_hash_that_is_none_is_a_sentence(path, tee):
    overwrite(path / "root/bin/sh", b"x")
    manifest = path / f"kernel.manifest{'.sgx' if tee == 'gramine-sgx' else ''}"
    text = re.sub(r'(root/bin/sh", sha256 = )"[0-9a-f]+"', '\\1"\u00fc"', manifest.read_text())
    overwrite(manifest, text.encode())
    with pytest.raises(RefusedError, match="has another content"):
        Image.open(path).check_unchanged(tee)


# -- its own files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', "\xff", '{"format": 1, "format": 1}', "[" * 100],
)
def test_a_record_that_is_none_is_one_sentence(path, text):
    overwrite(path / "image.json", text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        Image.open(path)
    assert str(path / "image.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_without_an_image_is_said_with_the_command_that_builds(tmp_path):
    for place in (tmp_path, tmp_path / "none", Path(__file__)):
        with pytest.raises(InputError, match=r"There is no kernel image .*`sealbook image build`"):
            Image.open(place)


def test_a_manifest_that_is_no_toml_or_missing_is_one_sentence(path):
    overwrite(path / "kernel.manifest", b"this is no TOML")
    assert {sentence.partition(":")[0] for sentence in problems(path, "gramine-direct")} == {
        f"{path / 'kernel.manifest'} is not TOML"
    }
    (path / "kernel.manifest").unlink()
    assert "cannot be read: No such file" in problems(path, "gramine-direct")[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "loader = 1",
        "loader.entrypoint = 1",
        "[loader]\nentrypoint = {}\n[sgx]\ntrusted_files = []",
        '[loader]\nentrypoint = { uri = "x", sha256 = "y" }',
        '[loader]\nentrypoint = { uri = "x", sha256 = "y" }\n[sgx]\ntrusted_files = 1',
        '[loader]\nentrypoint = { uri = "x", sha256 = "y" }\n[sgx]\ntrusted_files = ["file:image/root/"]',
        '[loader]\nentrypoint = { uri = "x", sha256 = "y" }\n[sgx.trusted_files]\na = 1',
    ],
)
def test_a_manifest_that_does_not_say_what_is_measured_is_one_sentence(path, text):
    overwrite(path / "kernel.manifest", text.encode())
    with pytest.raises(InputError, match="does not say what is measured: build it again"):
        Image.open(path).check_unchanged("gramine-direct")
    assert problems(path, "gramine-direct")


def test_an_unsafe_manifest_is_a_problem_that_says_where_all_are_listed(path):
    edit(path / "kernel.manifest.sgx", "debug = false", "debug = true")
    (sentence,) = problems(path)
    assert f"The image {path} is unsafe: sgx.debug" in sentence
    assert f"`sealbook image lint {path}` lists all 1" in sentence
    assert problems(path, "gramine-direct") == []


# -- signatures ------------------------------------------------------------------------------------


def test_an_unsigned_image_runs_without_sgx_only(tmp_path, stand_in):
    image = small_image(tmp_path / "image")
    assert problems(image.path, "gramine-direct") == []
    assert "is not signed, and SGX runs only signed enclaves" in problems(image.path)[0]
    assert "--key KEY" in problems(image.path)[0]


@pytest.mark.parametrize("part", ["kernel.sig", "kernel.manifest.sgx"])
def test_an_image_whose_signature_was_removed_is_not_signed(path, part):
    (path / part).unlink()
    assert "is not signed" in problems(path)[0]
    assert problems(path, "gramine-direct") == []


def test_an_image_that_only_says_that_it_is_signed_is_refused(path):
    edit(path / "image.json", '"signed":true', '"signed":false')
    assert "is not signed" in problems(path)[0]


@pytest.mark.parametrize("field", ["mrenclave", "modulus"])
def test_the_signature_of_another_image_or_key_is_refused(path, field):
    facts = Image.open(path).facts
    values = {
        "mrenclave": bytes.fromhex(facts.mrenclave),
        "modulus": (path / "kernel.sig").read_bytes()[128:512],
    }
    overwrite(path / "kernel.sig", sigstruct(**values, product=1, version=1))
    assert problems(path) == []
    values[field] = bytes(len(values[field]))
    overwrite(path / "kernel.sig", sigstruct(**values, product=1, version=1))
    (sentence,) = problems(path)
    assert sentence.startswith(f"{path / 'kernel.sig'} signs another image than {path / 'image.json'} says")


@pytest.mark.parametrize("content", [b"", bytes(1807), bytes(1809), bytes(10000)])
def test_a_signature_of_another_length_is_refused(path, content):
    overwrite(path / "kernel.sig", content)
    (sentence,) = problems(path)
    assert "bytes" in sentence


# -- the machine -----------------------------------------------------------------------------------


def test_another_gramine_is_refused_with_both_versions(path, stand_in):
    stand_in.say_version("1.10")
    with pytest.raises(RefusedError, match=r"was built with Gramine 1\.9 and this is 1\.10: build it again"):
        Image.open(path).check_runnable("gramine-direct")


def test_an_old_or_missing_gramine_is_refused(path, stand_in, monkeypatch):
    stand_in.say_version("1.8")
    with pytest.raises(MissingDependencyError, match=r"Gramine 1\.8 is too old"):
        Image.open(path).check_runnable("gramine-direct")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingDependencyError, match="no gramine-direct on the PATH"):
        Image.open(path).check_runnable("gramine-direct")


@pytest.mark.skipif(Path("/dev/sgx_enclave").exists(), reason="this machine has an SGX device")
def test_a_machine_without_sgx_is_said_with_what_runs_there(path, stand_in):
    with pytest.raises(MissingDependencyError, match=r"no /dev/sgx_enclave.*sealbook-gramine-direct"):
        Image.open(path).check_runnable("gramine-sgx")


def test_each_check_is_made_before_a_start(path, stand_in, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: True)  # also of the device
    Image.open(path).check_runnable("gramine-sgx")
    overwrite(path / "root/bin/sh", b"changed")
    for tee in TEES:
        with pytest.raises(RefusedError, match="has another content"):
            Image.open(path).check_runnable(tee)
    (path / "kernel.sig").unlink()
    with pytest.raises(RefusedError, match="is not signed"):
        Image.open(path).check_runnable("gramine-sgx")
