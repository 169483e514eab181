"""Two whole images of the layer `kernel`, built by two people in two places, and what is in them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gramine_stand_in import GramineStandIn, mrsigner
from sealbook.attestation import Policy
from sealbook.image.image import BUILT_TIME, Image
from sealbook.image.lint import lint
from sealbook.image.manifest import hash_tree

#: The two builds take a quarter of a minute, so one worker has them and all these tests.
pytestmark = pytest.mark.xdist_group("image")


@dataclass
class Builder:
    """Somebody who builds: everything that could get into an image and must not."""

    name: str
    directory: Path
    umask: int
    settings: dict[str, str]

    @property
    def image(self) -> Path:
        return self.directory / "images of" / "kernel"

    def start(self, gramine: GramineStandIn, *arguments: str) -> subprocess.Popen[str]:
        for name in ("home", "tmp", "work"):
            (self.directory / name).mkdir(parents=True)
        environment = {
            "PATH": gramine.path,
            "USER": self.name,
            "LOGNAME": self.name,
            "HOSTNAME": f"{self.name}-machine",
            "HOME": str(self.directory / "home"),
            "SEALBOOK_HOME": str(self.directory / "home/sealbook"),
            "TMPDIR": str(self.directory / "tmp"),
        }
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "sealbook", "image", "build"),
                *("--layer", "kernel", "--output", str(self.image), *arguments),
            ],
            cwd=self.directory / "work",
            env=environment | self.settings,
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def builders(
    tmp_path_factory: pytest.TempPathFactory, signing_key: Path
) -> tuple[Builder, Builder, GramineStandIn]:
    place = tmp_path_factory.mktemp("build")
    gramine = GramineStandIn(place / "gramine")
    ada = Builder("ada-lovelace", place / "ada", 0o077, {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"})
    bob = Builder("bob-the-builder", place / "bob/further/away", 0o002, {"PYTHONHASHSEED": "2", "LANG": "C"})
    # At the same time, on two cores; Bob signs and Ada does not.
    # Of one owner, whom only one of them is: the other names the public key, as a reviewer would.
    owner = ("--owner", "ab" * 32)
    started = [ada.start(gramine, *owner), bob.start(gramine, *owner, "--key", str(signing_key))]
    for process in started:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    return ada, bob, gramine


@pytest.fixture
def ada(builders) -> Builder:
    return builders[0]


@pytest.fixture
def bob(builders) -> Builder:
    return builders[1]


def contents(image: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of an image, and every file in its archives, unpacked."""
    for path in sorted(image.rglob("*")):
        if path.is_file():
            name, data = str(path.relative_to(image)), path.read_bytes()
            yield name, data
            if path.suffix == ".zip":
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    for entry in archive.namelist():
                        yield f"{name}/{entry}", archive.read(entry)


def run_inside(image: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the image's own interpreter as a plain program of this machine, with its own libraries."""
    python = image / "root/python/bin/python3"
    return subprocess.run(
        [str(python), "-I", "-B", *(arguments or ("-c", code))],
        env={"LD_LIBRARY_PATH": str(image / "root/lib")},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_two_people_build_the_same_image(ada, bob):
    trees = [dict(contents(builder.image)) for builder in (ada, bob)]
    different = {name for name in trees[0] | trees[1] if trees[0].get(name) != trees[1].get(name)}
    # What Bob has because he signed, and what says when a policy was written; none of it is measured.
    signed = {"kernel.manifest.sgx", "kernel.sig", "image.json", "policy-sgx.toml"}
    assert different - {"policy-direct.toml"} == signed
    assert Image.open(ada.image).facts.mrenclave == Image.open(bob.image).facts.mrenclave


def test_every_file_below_the_root_is_measured_and_nothing_else(ada):
    manifest = Image.open(ada.image).manifest()
    hashes = {entry["uri"]: entry["sha256"] for entry in manifest["sgx"]["trusted_files"]}
    there = {
        f"file:image/{path.relative_to(ada.image)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ada.image / "root").rglob("*")
        if path.is_file()
    }
    assert hashes == there
    assert not any(path.is_symlink() for path in ada.image.rglob("*"))
    assert hash_tree(ada.image)["gramine/libsysdb.so"] == manifest["loader"]["entrypoint"]["sha256"]


def test_few_files_are_measured(ada):
    assert len(hash_tree(ada.image)) < 1500


def test_nothing_in_an_image_names_who_built_it_where(ada, bob, builders, signing_key):
    forbidden = [
        text.encode()
        for text in (
            *(part for builder in (ada, bob) for part in (builder.name, str(builder.directory))),
            str(builders[2].place),
            str(signing_key.parent),
            sys.prefix,
            str(Path(__file__).parents[2] / "kernel"),
            os.environ["HOME"],
        )
    ]
    forbidden += signing_key.read_bytes().splitlines()[1:-1]
    for builder in (ada, bob):
        found = {(name, text) for name, data in contents(builder.image) for text in forbidden if text in data}
        assert not found


def test_files_have_one_time_and_one_of_two_modes_and_no_secret_ones(ada, bob):
    for builder in (ada, bob):
        for top in ("root", "gramine"):
            for path in (builder.image / top).rglob("*"):
                if path.is_file():
                    assert path.stat().st_mtime == BUILT_TIME, path
                    assert stat.S_IMODE(path.stat().st_mode) in (0o444, 0o555), path
    assert stat.S_IMODE((ada.image / "root/python/bin/python3").stat().st_mode) == 0o555
    assert stat.S_IMODE((ada.image / "root/etc/passwd").stat().st_mode) == 0o444


def test_an_archive_holds_sorted_entries_of_one_time(ada):
    archives = list((ada.image / "root").rglob("*.zip"))
    assert len(archives) > 100
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            assert names == sorted(names), path
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, path


def test_tests_caches_and_metadata_of_the_installation_are_pruned(ada):
    names = [name for name, _ in contents(ada.image)]
    for part in ("__pycache__", "/tests/", "/RECORD", "/direct_url.json", "/INSTALLER", "REQUESTED", ".pth"):
        assert not [name for name in names if part in name], part
    for package in ("debugpy", "jedi", "pip", "setuptools", "pytest", "ruff", "uv"):
        assert not [name for name in names if f"site-packages/{package}/" in name], package


def test_the_policies_beside_it_admit_the_image(ada, bob, signing_key):
    now = datetime.now(UTC)
    for builder, signer in ((ada, None), (bob, mrsigner(signing_key))):
        image = Image.open(builder.image)
        policy = Policy.load(image.policy("gramine-sgx"))
        policy.check_valid(now)
        (identity,) = policy.identities
        assert identity.mrenclave == (bytes.fromhex(image.facts.mrenclave),)
        assert identity.mrsigner == signer
        assert (identity.isv_prod_id, identity.min_isv_svn) == (1, 1)
        assert not identity.mrsigner_only
        assert policy.attested
        assert not policy.simulated
        direct = Policy.load(image.policy("gramine-direct"))
        direct.check_valid(now)
        assert (direct.attested, direct.tee, direct.identities) == (False, "gramine-direct", ())


def test_an_image_without_a_key_looks_signed_in_no_way(ada):
    image = Image.open(ada.image)
    assert (image.facts.signed, image.facts.mrsigner) == (False, None)
    assert not list(ada.image.glob("*.sig"))
    assert not list(ada.image.glob("*.sgx"))
    assert "is not signed" in image.problems("gramine-sgx")[0]
    assert image.problems() == []


def test_a_signed_image_is_ready_for_both_kinds_of_kernel(bob, signing_key):
    image = Image.open(bob.image)
    assert image.facts.mrsigner == mrsigner(signing_key).hex()
    assert image.problems("gramine-sgx") == []
    assert image.problems("gramine-direct") == []
    assert lint(image.manifest("gramine-sgx")) == []


def test_nothing_is_left_beside_an_image_or_among_temporary_files(ada, bob):
    for builder in (ada, bob):
        assert [path.name for path in builder.image.parent.iterdir()] == ["kernel"]
        assert list((builder.directory / "tmp").iterdir()) == []
        assert list((builder.directory / "work").iterdir()) == []


def test_the_record_counts_what_is_measured(ada):
    facts = Image.open(ada.image).facts
    hashes = hash_tree(ada.image)
    assert sum(group["files"] for group in facts.groups.values()) == len(hashes)
    assert sum(group["bytes"] for group in facts.groups.values()) == sum(
        (ada.image / path).stat().st_size for path in hashes
    )
    assert {"interpreter", "library OS", "packages", "sealbook", "standard library"} <= set(facts.groups)
    assert facts.layers == ["kernel"]
    assert {"sealbook", "ipykernel", "pyzmq", "cryptography"} <= set(facts.packages)


# -- the image's own interpreter, run natively -----------------------------------------------------


def test_the_interpreter_of_an_image_runs_its_own_modules_only(ada):
    done = run_inside(
        ada.image,
        "import sys, json, ipykernel.kernelapp, zmq, cryptography.hazmat.bindings._rust, psutil, dcap_qvl,"
        " sealbook.jupyter.gramine_kernel\n"
        "print(json.dumps([[p for p in sys.path], sorted({str(m.__file__) for m in sys.modules.values()"
        " if getattr(m, '__file__', None)})]))",
    )
    assert done.returncode == 0, done.stderr
    path, files = json.loads(done.stdout)
    root = str(ada.image / "root/python/lib/python")
    assert [entry for entry in path if not entry.startswith(root)] == []
    # What is frozen in the binary names no place, or the one where the binary was compiled.
    assert [
        file for file in files if not file.startswith(root) and not file.startswith(sys.base_prefix)
    ] == []
    assert any(file.endswith("/ipykernel/kernelapp.py") for file in files)


def test_every_module_of_sealbook_can_be_found_in_an_image(ada):
    done = run_inside(
        ada.image,
        "import pkgutil, sealbook\n"
        "print(*(m.name for m in pkgutil.walk_packages(sealbook.__path__, 'sealbook.')), sep='\\n')",
    )
    package = Path(__file__).parents[2] / "kernel"
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        for path in (package / "sealbook").rglob("*.py")
    }
    assert set(done.stdout.split()) == modules - {"sealbook"}, done.stderr


def test_distributions_say_their_versions_and_plugins_in_an_image(ada):
    done = run_inside(
        ada.image,
        "from importlib.metadata import version, entry_points\n"
        "print(version('ipykernel'), *(e.value for e in entry_points(group='fsspec.specs')))",
    )
    assert done.stdout.split()[0] == importlib.metadata.version("ipykernel")
    assert "sealbook.artifacts:SealedFileSystem" in done.stdout


def test_what_people_look_into_shows_its_source_in_an_image(ada):
    done = run_inside(
        ada.image,
        "import inspect, json, traceback\n"
        "print(inspect.getsource(json.JSONDecoder.decode))\n"
        "try: json.loads('{')\n"
        "except ValueError: traceback.print_exc()",
    )
    assert "def decode(self, s, _w=WHITESPACE.match):" in done.stdout
    assert "/json/decoder.py" in done.stderr
    assert "obj, end = self.scan_once(s, idx)" in done.stderr
    assert ada.name not in done.stderr


def test_the_entry_point_outside_of_gramine_ends_in_one_sentence(ada):
    done = run_inside(ada.image, "", "-m", "sealbook.jupyter.gramine_kernel")
    assert done.returncode == 2
    assert done.stderr.startswith("sealbook kernel: ")
    assert done.stderr.count("\n") == 1
