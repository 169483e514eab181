"""`sealbook install --tee gramine-...`: what is installed and approved, and that a refusal does neither."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gramine_stand_in import GramineStandIn, small_image
from sealbook.attestation import Policy
from sealbook.image import Image

TEES = ("gramine-direct", "gramine-sgx")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, signing_key: Path) -> Path:
    place = tmp_path_factory.mktemp("built")
    with GramineStandIn(place / "gramine").on_path():
        return small_image(place / "image", key=signing_key).path


@pytest.fixture
def image(built: Path, home: Path, stand_in: GramineStandIn) -> Path:
    """A signed image where `image build` puts it."""
    return Path(shutil.copytree(built, home / "images" / "kernel"))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "prefix"


@pytest.fixture
def install(run, prefix):
    def install(tee: str, *arguments: object, status: int | None = 0):
        return run("install", "--tee", tee, "--prefix", prefix, *arguments, status=status)

    return install


def spec(prefix: Path, name: str) -> dict:
    return json.loads((prefix / "share/jupyter/kernels" / name / "kernel.json").read_text())


def audit(home: Path) -> list[dict]:
    path = home / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def refused(install, prefix, home):
    """Install; returns the one sentence and sees that nothing was installed or approved."""

    def refused(tee: str, *arguments: object, status: int = 1) -> str:
        def kept() -> list[tuple[Path, bytes]]:
            places = [path for top in (prefix, home / "policies") for path in top.rglob("*")]
            return sorted((path, path.read_bytes()) for path in places if path.is_file())

        before = (kept(), audit(home))
        outcome = install(tee, *arguments, status=status)
        assert (kept(), audit(home)) == before
        assert outcome.out == ""
        assert outcome.err.startswith("sealbook: ")
        assert outcome.err.count("\n") == 1
        return outcome.err

    return refused


# -- what is installed -----------------------------------------------------------------------------


@pytest.mark.parametrize("tee", TEES)
def test_the_kernelspec_starts_the_launcher_with_the_image_and_its_policy(install, image, prefix, home, tee):
    outcome = install(tee)
    found = spec(prefix, f"sealbook-{tee}")
    assert found["argv"] == [
        *(sys.executable, "-I", "-B", "-m", "sealbook.jupyter.gramine_launcher"),
        *("--tee", tee, "--image", str(image)),
    ]
    assert found["metadata"]["kernel_provisioner"] == {
        "provisioner_name": "sealbook-provisioner",
        "config": {
            "policy": str(home / "policies" / f"{tee}.toml"),
            "image": str(image),
            "tee": tee,
            "data_key": "",
        },
    }
    assert found["interrupt_mode"] == "message"
    assert ("not attested" in found["display_name"]) == (tee == "gramine-direct")
    assert f"sealbook-{tee}" in outcome.out


@pytest.mark.parametrize("tee", TEES)
def test_to_install_is_to_approve_what_the_image_is_and_the_audit_log_says_so(install, image, home, tee):
    install(tee)
    path = home / "policies" / f"{tee}.toml"
    built = Policy.load(Image.open(image).policy(tee))
    written = Policy.load(path)
    assert replace(written, created=built.created, expires=built.expires) == built
    assert path.stat().st_mode & 0o777 == 0o600
    policy = Policy.load(path)
    assert policy.attested == (tee == "gramine-sgx")
    (entry,) = [entry for entry in audit(home) if "policy" in json.dumps(entry)]
    text = json.dumps(entry)
    assert "approved" in text
    assert str(path) in text
    assert (Image.open(image).facts.mrenclave in text) == (tee == "gramine-sgx")


@pytest.mark.parametrize("tee", TEES)
def test_it_is_a_document_with_json(install, image, tee):
    document = install(tee, "--json").json
    assert document["kernel"] == f"sealbook-{tee}"
    assert document["image"] == str(image)
    assert (document["simulated"], document["attested"]) == (False, tee == "gramine-sgx")


def test_a_data_directory_is_the_launchers_argument_and_its_keys_name_the_provisioners(
    install, image, prefix
):
    Path("records").mkdir()
    install("gramine-direct", "--data", "records", "--data-key", "mine", "--name", "mine")
    assert spec(prefix, "mine")["argv"][-2:] == ["--data", str(Path("records").absolute())]
    config = spec(prefix, "mine")["metadata"]["kernel_provisioner"]["config"]
    assert config["data_key"] == "mine"


def test_an_image_elsewhere_is_named_by_its_whole_path(
    install, built, prefix, stand_in, tmp_path, monkeypatch
):
    monkeypatch.chdir(built.parent)
    install("gramine-direct", "--image", built.name)
    assert spec(prefix, "sealbook-gramine-direct")["argv"][-1] == str(built)


def test_a_policy_that_was_replaced_is_kept_and_said(install, image, home):
    path = home / "policies" / "gramine-direct.toml"
    install("gramine-direct")
    assert "Replaced" not in install("gramine-direct").err
    path.write_text(path.read_text() + "# mine\n")
    assert f"the old one is {path}.old" in install("gramine-direct", "--quiet").err
    assert Path(f"{path}.old").read_text().endswith("# mine\n")


@pytest.mark.skipif(Path("/dev/sgx_enclave").exists(), reason="this machine has an SGX device")
def test_what_this_machine_lacks_is_said_and_the_kernel_installed_all_the_same(install, image, prefix):
    outcome = install("gramine-sgx")
    assert "Installed, but it cannot start yet: This machine has no /dev/sgx_enclave" in outcome.err
    assert spec(prefix, "sealbook-gramine-sgx")


@pytest.mark.parametrize(("version", "says"), [("1.8", "is too old"), ("1.10", "was built with Gramine 1.9")])
def test_another_gramine_here_is_said(install, image, stand_in, version, says):
    stand_in.say_version(version)
    assert says in install("gramine-direct").err


def test_no_gramine_here_is_said(install, image, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "There is no gramine-direct on the PATH" in install("gramine-direct").err


# -- images that cannot run ------------------------------------------------------------------------


@pytest.mark.parametrize("tee", TEES)
def test_without_an_image_it_is_said_how_to_build_one(refused, home, tee):
    assert "`sealbook image build`" in refused(tee, status=2)
    assert "There is no kernel image" in refused(tee, "--image", "elsewhere", status=2)


@pytest.mark.parametrize("tee", TEES)
def test_a_changed_image_is_refused_by_the_files_name(refused, image, tee):
    path = image / "root/bin/sh"
    path.chmod(0o755)
    path.write_bytes(path.read_bytes()[::-1])
    assert f"{path} has another content" in refused(tee)


def test_an_unsigned_image_is_refused_for_hardware_only(refused, install, image):
    (image / "kernel.sig").unlink()
    assert "is not signed" in refused("gramine-sgx")
    install("gramine-direct")


def test_an_unsafe_image_is_refused(refused, image):
    path = image / "kernel.manifest"
    path.write_text(path.read_text().replace("debug = false", "debug = true"))
    assert "is unsafe: sgx.debug" in refused("gramine-direct")


@pytest.mark.parametrize("name", ["image.json", "kernel.manifest"])
def test_a_file_of_the_image_that_is_malformed_is_one_sentence(refused, image, name):
    (image / name).write_text("{ nothing")
    assert name in refused("gramine-direct", status=2 if name == "image.json" else 1)


@pytest.mark.parametrize("tee", TEES)
@pytest.mark.parametrize("how", ["missing", "malformed"])
def test_an_image_without_a_policy_that_can_be_read_is_refused(refused, image, tee, how):
    path = Image.open(image).policy(tee)
    path.unlink()
    if how == "malformed":
        path.write_text("{")
    assert str(path) in refused(tee, status=2)


# -- policies --------------------------------------------------------------------------------------


def test_a_policy_of_ones_own_is_named_and_none_is_approved(install, image, prefix, home, tmp_path):
    mine = tmp_path / "mine.toml"
    for tee in TEES:
        shutil.copy(Image.open(image).policy(tee), mine)
        install(tee, "--policy", mine)
        config = spec(prefix, f"sealbook-{tee}")["metadata"]["kernel_provisioner"]["config"]
        assert config["policy"] == str(mine)
    assert not (home / "policies").exists() or list((home / "policies").iterdir()) == []
    assert audit(home) == []


def test_a_policy_for_another_image_is_refused(refused, run, image, home):
    run("policy", "init", "other", "--intel", "--mrenclave", "11" * 32)
    sentence = refused("gramine-sgx", "--policy", home / "policies/other.toml")
    assert f"is for another image than {image}" in sentence
    assert Image.open(image).facts.mrenclave[:16] in sentence


def test_an_image_whose_own_policy_is_for_another_is_refused(refused, image):
    path = image / "policy-sgx.toml"
    path.write_text(re.sub(r"[0-9a-f]{64}", "11" * 32, path.read_text(), count=1))
    assert "is for another image" in refused("gramine-sgx")


@pytest.mark.parametrize("tee", TEES)
def test_what_an_images_policy_admits_besides_is_not_approved(install, image, home, tee):
    path = Image.open(image).policy(tee)
    text = path.read_text().replace("ttl_seconds = 43200", "ttl_seconds = 80000")
    if tee == "gramine-sgx":
        text = text.replace("[tcb]", f'[[identity]]\nname = "also"\nmrenclave = ["{"11" * 32}"]\n\n[tcb]')
    assert text != path.read_text()
    path.write_text(text)
    Policy.load(path)
    install(tee)
    policy = Policy.load(home / "policies" / f"{tee}.toml")
    assert policy.release.ttl_seconds == 43200
    assert len(policy.identities) == (1 if tee == "gramine-sgx" else 0)


# -- what an image says of itself ------------------------------------------------------------------


def rewrite(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_signed_manifest_that_was_changed_is_not_approved_as_what_it_was(refused, image):
    """Its record, its policy and its signature agree with each other, and not with what SGX would run."""
    rewrite(image / "kernel.manifest.sgx", 'LANG = "C.UTF-8"', 'LANG = "other"')
    assert f"{image / 'kernel.sig'} says another identity than" in refused("gramine-sgx")


def test_a_record_that_says_another_version_is_refused(refused, image):
    rewrite(image / "image.json", '"isv_svn":1', '"isv_svn":0')
    rewrite(image / "policy-sgx.toml", "min_isv_svn = 1", "min_isv_svn = 0")
    assert f"{image / 'image.json'} says another identity than" in refused("gramine-sgx")


@pytest.mark.parametrize(
    ("at", "bits"), [(1024, 2), (1026, 2), (928, 2)], ids=["product", "version", "debug"]
)
def test_a_signature_of_another_identity_is_refused(refused, image, at, bits):
    path = image / "kernel.sig"
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)
    assert f"{path} says another identity than" in refused("gramine-sgx")


def test_an_owner_other_than_the_measured_one_is_refused(refused, image):
    owner = Image.open(image).facts.owner
    rewrite(image / "image.json", owner, "77" * 32)
    assert "answers to somebody else than image.json says" in refused("gramine-sgx")


def test_without_a_gramine_to_measure_with_only_a_policy_of_ones_own_will_do(
    refused, install, image, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", "/nonexistent")
    sentence = refused("gramine-sgx")
    assert "no gramine-sgx-sign on the PATH" in sentence
    assert "--policy" in sentence
    mine = shutil.copy(image / "policy-sgx.toml", tmp_path / "mine.toml")
    install("gramine-sgx", "--policy", mine)


def test_nothing_of_measuring_is_left(install, image, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = {path: path.read_bytes() for path in image.rglob("*") if path.is_file()}
    install("gramine-sgx")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert {path: path.read_bytes() for path in image.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("tee", TEES)
def test_a_policy_that_says_the_same_is_left_until_it_is_about_to_expire(install, image, home, tee):
    install(tee)
    path = home / "policies" / f"{tee}.toml"

    def age(days: int) -> bytes:
        now = datetime.now(UTC).replace(microsecond=0)
        text = path.read_text()
        for name, when in (("created", now), ("expires", now + timedelta(days=365))):
            when -= timedelta(days=days)
            text = re.sub(rf"(?m)^{name} = .*", f"{name} = {when:%Y-%m-%dT%H:%M:%SZ}", text)
        path.write_text(text)
        return path.read_bytes()

    old = age(300)
    assert "Replaced" not in install(tee).err
    assert path.read_bytes() == old
    for days in (340, 400):
        old = age(days)
        assert "Replaced" in install(tee).err
        assert path.read_bytes() != old
        assert Policy.load(path).created > datetime.now(UTC) - timedelta(days=1)


def test_a_policy_for_another_signer_is_refused(refused, image):
    facts = Image.open(image).facts
    path = image / "policy-sgx.toml"
    text = path.read_text()
    assert facts.mrsigner in text
    path.write_text(text.replace(facts.mrsigner, "22" * 32))
    assert "is for another image" in refused("gramine-sgx")


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ('mrsigner = "{signer}"\nisv_prod_id = 1\nmin_isv_svn = 1', True),
        ('mrsigner = "{other}"\nisv_prod_id = 1\nmin_isv_svn = 1', False),
        ('mrsigner = "{signer}"\nisv_prod_id = 2\nmin_isv_svn = 1', False),
        ('mrsigner = "{signer}"\nisv_prod_id = 1\nmin_isv_svn = 2', False),
    ],
)
def test_a_policy_by_signer_admits_its_images(install, refused, image, tmp_path, fields, fits):
    facts = Image.open(image).facts
    text = (image / "policy-sgx.toml").read_text()
    fields = fields.format(signer=facts.mrsigner, other="22" * 32)
    text = re.sub(r"(?m)^(mrenclave|mrsigner|isv_prod_id|min_isv_svn) = .*\n", "", text)
    text = text.replace("[[identity]]\n", f"[[identity]]\nmrsigner_only = true\n{fields}\n")
    (tmp_path / "signer.toml").write_text(text)
    if fits:
        install("gramine-sgx", "--policy", tmp_path / "signer.toml")
    else:
        assert "is for another image" in refused("gramine-sgx", "--policy", tmp_path / "signer.toml")


def test_a_kernel_without_evidence_under_a_policy_that_asks_for_some_is_refused(refused, run, image, home):
    run("policy", "init", "simulated-one", "--mrenclave", "11" * 32)
    for policy in (image / "policy-sgx.toml", home / "policies/simulated-one.toml"):
        sentence = refused("gramine-direct", "--policy", policy)
        assert "asks for evidence, and a kernel in gramine-direct has none" in sentence
        assert "sealbook policy init NAME --tee gramine-direct" in sentence


def test_a_hardware_kernel_under_a_policy_that_asks_for_nothing_is_refused(refused, run, image, home):
    run("policy", "init", "simulated-one", "--mrenclave", Image.open(image).facts.mrenclave)
    for policy in (image / "policy-direct.toml", home / "policies/simulated-one.toml"):
        assert "is not for hardware" in refused("gramine-sgx", "--policy", policy)


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tee", TEES)
def test_options_that_contradict_each_other_are_refused(refused, image, tee):
    Path("records").mkdir()
    for arguments, cause in (
        (("--data", "records"), "Say both or none of --data and --data-key"),
        (("--data-key", "mine"), "Say both or none of --data and --data-key"),
        (("--data", "missing", "--data-key", "mine"), "There is no directory missing for --data"),
        (("--name", "a/b"), "not a kernel name"),
        (("--policy", "missing.toml"), "cannot be read"),
    ):
        assert cause in refused(tee, *arguments, status=2)


def test_an_image_that_encrypts_its_work_needs_a_key(refused, install, prefix, image, signing_key):
    small_image(image, key=signing_key, work="encrypted", force=True)
    assert "say with --data-key under which key" in refused("gramine-direct", status=2)
    install("gramine-direct", "--data-key", "mine")
    provisioner = spec(prefix, "sealbook-gramine-direct")["metadata"]["kernel_provisioner"]
    assert provisioner["config"]["data_key"] == "mine"


def test_an_unknown_tee_is_refused_with_those_there_are(refused, home):
    assert "say simulated, gramine-sgx, gramine-direct" in refused("sgx", status=2)


def test_the_simulated_kernel_has_no_image_and_no_data(refused, home):
    for arguments in (("--image", "x"), ("--data", "x"), ("--data-key", "x")):
        assert "are for Gramine kernels" in refused("simulated", *arguments, status=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_place_that_cannot_be_written_is_one_sentence(install, image, prefix):
    prefix.mkdir(mode=0o500)
    assert "cannot be written" in install("gramine-direct", status=2).err


def test_a_place_that_is_a_file_is_one_sentence(install, image, prefix):
    prefix.write_text("")
    outcome = install("gramine-direct", status=2)
    assert "The kernelspec cannot be written" in outcome.err
    assert outcome.err.count("\n") == 1
