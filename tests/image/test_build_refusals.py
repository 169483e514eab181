"""What cannot be built is said in one sentence, and nobody ever sees half an image."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import sealbook.image.build as building
from gramine_stand_in import GramineStandIn, small_image
from sealbook.errors import InputError, MissingDependencyError, RefusedError, SealbookError
from sealbook.image import Image, distributions, gramine, manifest
from sealbook.image.build import Recipe, build


def refusal(error: type[SealbookError], output: Path, **recipe: object) -> str:
    """Return the sentence; nothing may be left."""
    before = sorted(output.parent.iterdir()) if output.parent.exists() else []
    with pytest.raises(error) as caught:
        small_image(output, **recipe)
    assert (sorted(output.parent.iterdir()) if output.parent.exists() else []) == before
    return str(caught.value)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images" / "kernel"


# -- Gramine ---------------------------------------------------------------------------------------


def test_a_missing_gramine_is_said_with_where_to_get_it(output, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    sentence = refusal(MissingDependencyError, output)
    assert sentence.startswith("There is no gramine-direct on the PATH")
    assert "\n" not in sentence
    assert "https://gramine.readthedocs.io" in sentence


@pytest.mark.parametrize("version", ["1.8", "0.99", "1.8.9post~UNRELEASED"])
def test_an_old_gramine_is_said(output, stand_in, version):
    stand_in.say_version(version)
    sentence = refusal(MissingDependencyError, output)
    assert f"Gramine {version} is too old for sealbook" in sentence


@pytest.mark.parametrize(("says", "version"), [("1.9", "1.9"), ("1.10", "1.10"), ("2.0post~X", "2.0")])
def test_a_new_gramine_is_taken(stand_in, says, version):
    stand_in.say_version(says)
    assert gramine.Gramine.find() == gramine.Gramine(version, stand_in.runtime, stand_in.libos)


def test_a_gramine_that_says_no_version_is_refused(output, stand_in):
    stand_in.program("gramine-direct", "print('hello')")
    assert "does not say which version" in refusal(MissingDependencyError, output)


@pytest.mark.parametrize("answer", ["", "no TOML", "runtime = '/x'", "runtime = 1\nlibos = '/x'"])
def test_a_gramine_that_says_no_places_is_refused(output, stand_in, answer):
    stand_in.program("gramine-manifest", f"print({answer!r})")
    assert "does not say where Gramine is installed" in refusal(MissingDependencyError, output)


def test_of_a_program_that_fails_the_last_line_is_said_and_no_more_than_a_line(output, stand_in):
    stand_in.program("gramine-manifest", "import sys; sys.exit('first\\n' + 'x' * 1000)")
    sentence = refusal_of_any(output)
    assert sentence == f"gramine-manifest failed: {'x' * 300}"
    stand_in.program("gramine-manifest", "import sys; sys.exit(5)")
    assert refusal_of_any(output) == "gramine-manifest failed: exit status 5"


def refusal_of_any(output: Path) -> str:
    with pytest.raises(RefusedError) as caught:
        small_image(output)
    assert not output.exists()
    return str(caught.value)


def test_a_program_that_cannot_be_run_is_a_sentence(output, stand_in):
    (stand_in.programs / "gramine-manifest").write_bytes(b"\x7fELF nothing")
    assert "gramine-manifest could not be run (OSError)" in refusal(RefusedError, output)


def test_a_signer_that_is_missing_or_fails_leaves_nothing(output, stand_in, tmp_path, signing_key):
    (tmp_path / "bad.pem").write_text("no key")
    assert "is no key that SGX takes" in refusal(InputError, output, key=tmp_path / "bad.pem")
    (tmp_path / "small.pem").write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert "is no key that SGX takes" in refusal(InputError, output, key=tmp_path / "small.pem")
    (stand_in.programs / "gramine-sgx-sign").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(stand_in.programs))
        assert "no gramine-sgx-sign" in refusal(MissingDependencyError, output, key=signing_key)


def test_a_signature_of_another_length_is_refused(output, stand_in):
    stand_in.program(
        "gramine-sgx-sign",
        "import sys; open('kernel.sig', 'wb').write(bytes(1807)); open('kernel.manifest.sgx', 'w')",
    )
    assert "1808 bytes, this one 1807" in refusal(InputError, output)


# -- recipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "cause"),
    [
        ({"name": "../x"}, "not an image name"),
        ({"name": ""}, "not an image name"),
        ({"name": "x" * 49}, "not an image name"),
        ({"name": 'x"\ny'}, "not an image name"),
        ({"name": "x\n"}, "not an image name"),
        ({"work": "none"}, "say host or encrypted"),
        ({"enclave_size": "0G"}, "not a size"),
        ({"enclave_size": '1G"\nx = 1'}, "not a size"),
        ({"enclave_size": "1G\n"}, "not a size"),
        ({"enclave_size": "1T"}, "not a size"),
        ({"layers": ("kernel", "bogus")}, "no layer 'bogus'; there are: kernel, data, learn, tensorflow"),
        ({"key": Path("missing.pem")}, "gramine-sgx-gen-private-key"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_sentence(output, stand_in, recipe, cause):
    assert cause in refusal(InputError, output, **recipe)


def test_a_package_that_is_not_installed_is_named(output, stand_in):
    with pytest.raises(InputError, match="package no-such-package-of-ours is needed and not installed"):
        build(Recipe(packages=("no_such.package-of-ours",)), output)
    assert list(output.parent.iterdir()) == []


def test_a_layer_whose_packages_are_missing_is_a_sentence(output, stand_in, monkeypatch):
    monkeypatch.setitem(distributions.LAYERS, "data", ("not-there-at-all",))
    with pytest.raises(InputError, match="not-there-at-all is needed and not installed: install it, or"):
        build(Recipe(layers=("data",)), output)
    assert not output.exists()


def test_an_installation_that_the_lock_disagrees_with_makes_no_image(output, stand_in, tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("ipykernel==0.0.1\n")
    with pytest.raises(RefusedError, match=r"install from the lock first"):
        build(Recipe(lock=lock), output)
    assert list(output.parent.iterdir()) == []


# -- whole or not at all ---------------------------------------------------------------------------


def test_what_exists_is_replaced_only_with_force(output, stand_in):
    first = small_image(output)
    inode = output.stat().st_ino
    assert "--force" in refusal(InputError, output)
    assert output.stat().st_ino == inode
    second = small_image(output, force=True, enclave_size="32G")
    assert first.facts.mrenclave != second.facts.mrenclave
    assert Image.open(output) == second
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["directory", "empty", "file"])
def test_what_is_no_image_is_not_replaced_even_with_force(output, stand_in, kind, force):
    output.parent.mkdir()
    if kind == "file":
        output.write_text("mine")
    else:
        output.mkdir()
    if kind == "directory":
        (output / "thesis.txt").write_text("mine")
    assert "exists" in refusal(InputError, output, force=force)
    assert output.exists()
    assert kind != "directory" or (output / "thesis.txt").read_text() == "mine"


def test_a_build_that_fails_keeps_the_image_that_was_there(output, stand_in):
    kept = small_image(output)
    stand_in.program("gramine-sgx-sign", "import sys; sys.exit('no')")
    assert "gramine-sgx-sign failed" in refusal(RefusedError, output, force=True)
    assert Image.open(output) == kept
    assert Image.open(output).problems() == []


def test_an_image_that_is_not_safe_never_appears(output, stand_in, monkeypatch):
    monkeypatch.setattr(manifest, "_TEMPLATE", manifest._TEMPLATE.replace("debug = false", "debug = true"))
    assert "is unsafe" in refusal(RefusedError, output)


_KILLED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gramine_stand_in, sealbook.image.build as building

def stop(*_, **__):
    os.write(1, b"x")
    time.sleep(600)

setattr(building, sys.argv[3], stop)
gramine_stand_in.small_image(Path(sys.argv[2]))
"""


def test_what_a_killed_build_left_is_removed_by_the_next(output, stand_in, monkeypatch):
    """What it left is a copy of a build's own directory, whose lock nobody holds."""
    real, left = building._settle, []

    def settle(place: Path) -> None:
        left.append(place.parent.with_name(f"{place.parent.name}-left"))
        shutil.copytree(place.parent, left[-1])
        real(place)

    with monkeypatch.context() as patched:
        patched.setattr(building, "_settle", settle)
        small_image(output)
    foreign = left[0].with_name(f"{left[0].name}-foreign")
    foreign.mkdir()
    assert (left[0] / "image").exists()
    small_image(output, force=True)
    assert not left[0].exists()
    assert foreign.exists()


@pytest.mark.parametrize("step", ["_settle", "_sign", "_write_policies"])
def test_a_build_that_is_killed_leaves_no_image(output, stand_in, step):
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(Path(__file__).parents[1]), str(output), step],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(1) == b"x"
        assert not output.exists()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    # What it did leave is hidden, and nothing that a build or a kernel takes for an image.
    assert all(path.name.startswith(".") for path in output.parent.iterdir())
    assert small_image(output).problems() == []


def test_a_key_that_is_thrown_away_is_nowhere_afterwards(output, stand_in, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    image = small_image(output)
    assert list((tmp_path / "tmp").iterdir()) == []
    files = [path for path in output.rglob("*") if path.is_file()]
    assert not [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    assert image.facts.mrsigner is None
    assert not [path for path in files if path.suffix in (".sig", ".sgx", ".pem")]


def test_the_thrown_away_key_is_for_nobody_else_while_it_is_there(output, stand_in, monkeypatch):
    seen = []
    monkeypatch.setattr(gramine, "sign", lambda place, name, key: seen.append(key.stat()) or stop())

    def stop():
        raise RefusedError("enough.")

    previous = os.umask(0)
    try:
        refusal(RefusedError, output)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(seen[0].st_mode) == 0o600


def test_the_settings_of_a_recipe_are_measured(tmp_path, stand_in, signing_key):
    recipes = [{}, {"work": "encrypted"}, {"enclave_size": "1G"}, {"name": "other"}]
    images = [
        small_image(tmp_path / str(number), key=signing_key, **recipe)
        for number, recipe in enumerate(recipes)
    ]
    assert len({image.facts.mrenclave for image in images}) == len(images)
    assert [image.facts.work for image in images] == ["host", "encrypted", "host", "host"]
    assert images[1].manifest()["sgx"]["allowed_files"] == ["file:launch/registration"]


def test_another_library_os_or_c_library_is_another_measurement(tmp_path, stand_in, signing_key):
    first = small_image(tmp_path / "1", key=signing_key)
    stand_in.libos.write_text("another library OS\n")
    second = small_image(tmp_path / "2", key=signing_key)
    (stand_in.runtime / "libstandin_gramine.so").write_text("another C library\n")
    third = small_image(tmp_path / "3", key=signing_key)
    assert len({image.facts.mrenclave for image in (first, second, third)}) == 3


def test_a_stand_in_says_so(stand_in: GramineStandIn):
    asked = subprocess.run(["gramine-direct", "--version"], capture_output=True, text=True, check=True)
    assert "stand-in" in asked.stdout
