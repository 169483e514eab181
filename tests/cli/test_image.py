"""`sealbook image lint` and `inspect`: what a person sees, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SOUND = Path(__file__).parents[1] / "data/manifests/sound.manifest"
FACTS = {
    "format": 1,
    "name": "base",
    "layers": ["base"],
    "gramine": "1.9",
    "python": "3.11.7",
    "packages": {"numpy": "2.4.6"},
    "programs": ["sh"],
    "mrenclave": "ab" * 32,
    "mrsigner": None,
    "isv_prod_id": 1,
    "isv_svn": 1,
    "signed": False,
    "work": "host",
    "manifest": "cd" * 32,
    "owner": None,
    "role": "kernel",
    "tables": None,
    "groups": {"standard library": {"files": 5, "bytes": 4096}},
}


@pytest.fixture
def image(tmp_path) -> Path:
    directory = tmp_path / "image"
    directory.mkdir()
    (directory / "kernel.manifest").write_text(SOUND.read_text())
    (directory / "image.json").write_text(json.dumps(FACTS))
    return directory


def make_unsafe(path: Path) -> None:
    path.write_text(path.read_text().replace("debug = false", "debug = true"))


@pytest.mark.parametrize("command", ["lint", "inspect"])
def test_the_commands_explain_themselves(run, command):
    assert f"Usage: sealbook image {command}" in run("image", command, "--help").out


def test_a_sound_image_or_manifest_passes_in_one_line(run, image):
    for path in (image, image / "kernel.manifest"):
        outcome = run("image", "lint", path)
        assert outcome.out == f"{image / 'kernel.manifest'}: nothing unsafe.\n"
        assert run("image", "lint", path, "--json").json["ok"]


def test_an_unsafe_manifest_ends_with_status_1_and_a_table(run, image):
    make_unsafe(image / "kernel.manifest")
    outcome = run("image", "lint", image, status=1)
    assert outcome.err == ""
    assert "nothing unsafe" not in outcome.out
    for part in ("setting", "found", "reason", "what to do", "sgx.debug", "true", "can read and change"):
        assert part in outcome.out


def test_an_unsafe_manifest_is_a_document_with_json(run, image):
    make_unsafe(image / "kernel.manifest")
    document = run("image", "lint", image, "--json", status=1).json
    assert not document["ok"]
    (judged,) = document["manifests"]
    assert judged["path"] == str(image / "kernel.manifest")
    (objection,) = judged["objections"]
    assert set(objection) == {"setting", "found", "reason", "remedy"}
    assert (objection["setting"], objection["found"]) == ("sgx.debug", "true")


def test_a_signed_manifest_that_is_unsafe_is_refused_although_the_plain_one_is_sound(run, image):
    signed = image / "kernel.manifest.sgx"
    signed.write_text(SOUND.read_text())
    make_unsafe(signed)
    assert str(signed) in run("image", "lint", image, status=1).out


def test_of_very_many_objections_the_first_hundred_are_shown(run, image):
    path = image / "kernel.manifest"
    path.write_text(path.read_text() + "".join(f"new{number} = 1\n" for number in range(150)))
    out = run("image", "lint", image, status=1).out
    assert "sgx.new99 " in out
    assert "sgx.new100 " not in out
    assert "and 50 more" in out
    assert len(run("image", "lint", image, "--json", status=1).json["manifests"][0]["objections"]) == 150


def test_what_a_manifest_says_cannot_move_the_cursor(run, image):
    path = image / "kernel.manifest"
    path.write_text('"\\u001b[2J" = 1\n' + path.read_text())
    assert "\x1b" not in run("image", "lint", image, status=1).out
    assert "\x1b" not in run("image", "inspect", image).out


def test_inspect_shows_what_is_measured_and_every_mount_with_its_reason(run, image):
    out = run("image", "inspect", image).out
    for part in (
        "ab" * 32,
        "1.9, 3.11.7",
        "numpy 2.4.6",
        "standard library",
        "4.0 KiB",
        "/python/bin/python3",
        "python3 -I -B -m sealbook.jupyter.gramine_kernel",
        "MALLOC_ARENA_MAX",
        "/scratch",
        "file:work",
        "why that is safe",
        "not signed",
        "with gramine-direct the host can read and change everything",
    ):
        assert part in out, part


def test_inspect_is_a_document_with_json(run, image):
    document = run("image", "inspect", image, "--json").json
    assert document["facts"]["name"] == "base"
    assert document["trusted_files"] == 5
    assert {mount["path"] for mount in document["mounts"]} >= {"/", "/work", "/data"}
    assert document["objections"] == []


def test_inspect_shows_an_unsafe_image_and_says_so(run, image):
    make_unsafe(image / "kernel.manifest")
    out = run("image", "inspect", image).out
    assert "not safe: the host can read" in out
    assert "sealbook image lint" in out


def test_a_record_that_is_no_record_is_one_line_with_status_2(run, image):
    (image / "image.json").write_text(json.dumps(FACTS | {"signed": "yes"}))
    outcome = run("image", "inspect", image, status=2)
    assert outcome.err.count("\n") == 1
    assert "signed is not true or false" in outcome.err
