"""What inspect shows of an image, and that it believes neither the record nor an unsafe manifest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sealbook.errors import InputError
from sealbook.image.image import Facts
from sealbook.image.inspection import Inspection, MountView, inspect_image, inspect_manifest
from sealbook.image.reading import check_facts

from .conftest import SOUND


def inspected(manifest: dict[str, Any], facts: dict[str, Any]) -> Inspection:
    check_facts(facts, "image.json")
    return inspect_manifest(manifest, Facts(**facts))


def mounts(inspection: Inspection) -> dict[str, MountView]:
    return {mount.path: mount for mount in inspection.mounts}


@pytest.fixture
def image(tmp_path, facts):
    for name in ("kernel.manifest", "kernel.manifest.sgx"):
        (tmp_path / name).write_text(SOUND.read_text())
    (tmp_path / "image.json").write_text(json.dumps(facts))
    return tmp_path


# -- what is shown -------------------------------------------------------------------------------


def test_an_image_is_explained_from_its_manifest_and_record_alone(image):
    found = inspect_image(image)
    assert found.entrypoint == "/python/bin/python3"
    assert found.argv == ("python3", "-I", "-B", "-m", "sealbook.jupyter.gramine_kernel")
    assert found.environment["HOME"] == "/scratch"
    assert found.start_dir == "/work"
    assert found.trusted_files == 5
    assert found.facts.packages["numpy"] == "2.4.6"
    assert found.facts.mrenclave == "ab" * 32
    assert found.objections == ()
    assert found.remarks == ()
    assert json.loads(json.dumps(found.to_dict()))["facts"]["gramine"] == "1.9"


def test_of_every_mount_it_says_what_backs_it_and_what_the_host_can_do(image):
    shown = mounts(inspect_image(image))
    assert {
        path: (mount.kind, mount.backing, mount.host_reads, mount.host_changes)
        for path, mount in shown.items()
    } == {
        "/": ("chroot", "file:image/root", True, False),
        "/tmp": ("tmpfs", "memory", False, False),
        "/scratch": ("encrypted", "file:scratch", False, False),
        "/data": ("encrypted", "file:data", False, False),
        "/work": ("chroot", "file:work", True, True),
        "/run/sealbook/registration": ("chroot", "file:launch/registration", True, True),
    }
    assert all(mount.safe for mount in shown.values())
    reasons = [mount.why for mount in shown.values()]
    assert len(set(reasons)) == len(reasons)
    assert "measured" in shown["/"].why
    assert "memory" in shown["/tmp"].why
    assert "makes for itself" in shown["/scratch"].why
    assert "'data'" in shown["/data"].why
    assert "untrusted input" in shown["/run/sealbook/registration"].why
    assert "in the clear" in shown["/work"].why


def test_an_encrypted_notebook_directory_is_shown_as_such(manifest, facts):
    manifest["fs"]["mounts"][3] |= {"type": "encrypted", "key_name": "work"}
    manifest["sgx"]["allowed_files"].pop()
    found = inspected(manifest, facts | {"work": "encrypted"})
    assert not mounts(found)["/work"].host_reads
    assert "'work'" in mounts(found)["/work"].why
    assert found.remarks == ()


def test_a_library_os_without_a_hash_is_not_counted_as_measured(manifest, facts):
    del manifest["loader"]["entrypoint"]["sha256"]
    assert inspected(manifest, facts).trusted_files == 4


def test_a_variable_of_the_host_is_shown_as_such(manifest, facts):
    manifest["loader"]["env"] |= {"A": {"passthrough": True}, "B": {"value": "b"}}
    shown = inspected(manifest, facts).environment
    assert shown["A"] == "(from the host)"
    assert shown["B"] == "b"


# -- what is not believed ------------------------------------------------------------------------


def test_an_unsigned_image_is_said_not_to_be_attested(manifest, facts):
    (remark,) = inspected(manifest, facts | {"signed": False, "mrsigner": None}).remarks
    assert "not signed" in remark


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("isv_prod_id", 2, "isv_prod_id 2"),
        ("isv_svn", 7, "isv_svn 7"),
        ("work", "encrypted", "is encrypted"),
        ("groups", {}, "counts 0 measured files"),
    ],
)
def test_where_record_and_manifest_disagree_the_manifest_counts(manifest, facts, field, value, said):
    (remark,) = inspected(manifest, facts | {field: value}).remarks
    assert said in remark
    assert "the manifest counts" in remark


def test_an_unsafe_manifest_is_shown_with_the_number_of_its_objections(manifest, facts):
    manifest["loader"]["log_level"] = "all"
    manifest["libos"]["check_invalid_pointers"] = False
    found = inspected(manifest, facts)
    assert len(found.objections) == 2
    assert found.remarks[0].startswith("2 settings are unsafe")


@pytest.mark.parametrize(
    ("table", "change", "unsafe"),
    [
        ("sgx", {"debug": True}, {"/", "/tmp", "/scratch", "/data", "/work", "/run/sealbook/registration"}),
        ("sgx", {"file_check_policy": "allow_all_but_log"}, {"/", "/work", "/run/sealbook/registration"}),
        ("fs", {"insecure__keys": {"data": "00" * 16}}, {"/scratch", "/data"}),
    ],
)
def test_no_mount_is_called_safe_that_another_setting_opens(manifest, facts, table, change, unsafe):
    manifest[table] |= change
    shown = mounts(inspected(manifest, facts))
    assert {path for path, mount in shown.items() if not mount.safe} == unsafe
    assert all(shown[path].why.startswith("not safe: ") for path in unsafe)


def test_a_mount_that_the_lint_refuses_is_not_called_safe(manifest, facts):
    manifest["fs"]["mounts"].append({"path": "/python/lib/more", "uri": "file:work"})
    mount = mounts(inspected(manifest, facts))["/python/lib/more"]
    assert (mount.safe, mount.host_changes) == (False, True)
    assert "the host may change" in mount.why


def test_a_mount_is_not_called_safe_where_the_manifest_is_too_broken_to_judge_it(manifest, facts):
    del manifest["fs"]["root"]
    manifest["sgx"]["allowed_files"] = ["file:work", "file:other"]
    manifest["fs"]["mounts"].append({"path": "/other", "uri": "file:other"})
    mount = mounts(inspected(manifest, facts))["/other"]
    assert (mount.safe, mount.host_changes) == (False, True)


@pytest.mark.parametrize("broken", [{}, {"fs": 1, "sgx": [], "loader": "x", "libos": None}])
def test_a_manifest_that_says_nothing_is_shown_all_the_same(facts, broken):
    found = inspected(broken, facts)
    assert found.mounts == ()
    assert found.objections


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_what_sgx_runs_is_shown_and_not_what_lies_beside_it(image):
    change(image / "kernel.manifest.sgx", 'LANG = "C.UTF-8"', 'LANG = "signed"')
    found = inspect_image(image)
    assert found.environment["LANG"] == "signed"
    (remark,) = found.remarks
    assert "they differ in loader.env.LANG." in remark
    assert "gramine-direct runs" in remark


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("isvsvn = 1\n", "", "sgx.isvsvn"),
        ("debug = false", "debug = 0", "sgx.debug"),
        ('key_name = "data"', 'key_name = "other"', "fs.mounts"),
        ('"file:work/"]', '"file:work/", "file:x"]', "sgx.allowed_files"),
        ("4" * 64, "5" * 64, "sgx.trusted_files"),
        ("enclave_size", "enable_stats = true\nenclave_size", "sgx.enable_stats"),
        ("[sys]", "[sys]\nbrk.max_size = '1M'", "sys.brk.max_size"),
        ('-I", "-B"', '-B", "-I"', "loader.argv"),
    ],
)
def test_every_difference_of_the_two_manifests_is_named(image, before, after, named):
    change(image / "kernel.manifest.sgx", before, after)
    assert any(f"they differ in {named}." in remark for remark in inspect_image(image).remarks)


def test_what_gramine_adds_when_it_signs_is_no_difference(image):
    change(image / "kernel.manifest", "debug = false\n", "")
    change(image / "kernel.manifest.sgx", "enclave_size", "enable_stats = false\nenclave_size")
    assert inspect_image(image).remarks == ()


def test_an_image_that_is_called_signed_without_a_signed_manifest_is_said_to_be_so(image):
    (image / "kernel.manifest.sgx").unlink()
    (remark,) = inspect_image(image).remarks
    assert "there is no kernel.manifest.sgx" in remark


# -- the record ----------------------------------------------------------------------------------

BAD_FACTS = [
    ("format", 2),
    ("format", True),
    ("name", ""),
    ("name", "a\x1b[2J"),
    ("name", "../x"),
    ("layers", "base"),
    ("layers", [1]),
    ("gramine", 1.9),
    ("gramine", "1.9\n"),
    ("python", None),
    ("packages", ["numpy"]),
    ("packages", {"numpy": 2}),
    ("packages", {"nu\nmpy": "2"}),
    ("programs", ["a b"]),
    ("programs", ["x"] * 10_001),
    ("mrenclave", "AB" * 32),
    ("mrenclave", "ab"),
    ("mrsigner", 5),
    ("isv_prod_id", 65536),
    ("isv_prod_id", True),
    ("isv_svn", -1),
    ("signed", 1),
    ("work", "hosted"),
    ("groups", {"interpreter": {"files": 1}}),
    ("groups", {"interpreter": {"files": 1, "bytes": -1}}),
    ("groups", {"interpreter": {"files": 1, "bytes": 1, "more": 1}}),
    ("groups", {"inter\tpreter": {"files": 1, "bytes": 1}}),
    ("groups", {"interpreter": 5}),
]


@pytest.mark.parametrize(("field", "value"), BAD_FACTS, ids=lambda value: repr(value)[:30])
def test_a_field_of_the_record_that_is_not_of_its_form_is_refused(facts, field, value):
    with pytest.raises(InputError, match=rf"^image\.json is not an image's record: {field} is not "):
        check_facts(facts | {field: value}, "image.json")


def test_a_record_with_a_field_missing_or_unknown_is_refused(facts):
    for name in facts:
        with pytest.raises(InputError, match=f"{name} is missing"):
            check_facts({key: value for key, value in facts.items() if key != name}, "image.json")
    with pytest.raises(InputError, match="'more' is not known"):
        check_facts(facts | {"more": 1}, "image.json")
    with pytest.raises(InputError, match="not an object"):
        check_facts([facts], "image.json")


@pytest.mark.parametrize("field", ["mrenclave", "mrsigner"])
def test_a_signed_image_without_a_measurement_or_signer_is_refused(facts, field):
    with pytest.raises(InputError, match="it is signed and has no"):
        check_facts(facts | {field: None}, "image.json")
    check_facts(facts | {field: None, "signed": False}, "image.json")


def test_the_record_that_sealbook_writes_passes(tmp_path, facts):
    Facts(**facts).save(tmp_path)
    check_facts(json.loads((tmp_path / "image.json").read_text()), "image.json")


def test_what_is_no_image_is_one_sentence(image, tmp_path):
    with pytest.raises(InputError, match="no directory"):
        inspect_image(image / "image.json")
    (image / "kernel.manifest.sgx").unlink()
    (image / "kernel.manifest").unlink()
    with pytest.raises(InputError, match=r"manifest .* cannot be read"):
        inspect_image(image)
    (image / "image.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        inspect_image(image)
    (image / "image.json").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(InputError, match="larger than"):
        inspect_image(image)
    (image / "image.json").unlink()
    os.mkfifo(image / "image.json")
    with pytest.raises(InputError, match="not a regular file"):
        inspect_image(image)
