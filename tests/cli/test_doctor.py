"""What `sealbook doctor` says of machines that are stand-ins: trees of /dev, /proc, /sys and /etc."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import types
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sealbook import paths
from sealbook.attestation import Collateral
from sealbook.attestation.pccs import CachedCollateral, CollateralCache
from sealbook.cli import doctor, doctor_collateral, doctor_gramine, doctor_hardware
from sealbook.cli.findings import MISSING, OK, TODO, Finding, Machine
from sealbook.errors import InputError

GENUINE = Path(__file__).parents[1] / "data" / "sgx-quotes" / "phala_sgx" / "collateral.json"
#: The genuine collateral ends then.
END = datetime.fromisoformat("2025-07-19T10:01:18Z")


class StandIn:
    """A machine made of files."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.programs = directory / "programs"
        self.kernels = directory / "kernels"
        self.environment: dict[str, str] = {}
        for each in (self.root, self.programs, self.kernels):
            each.mkdir()

    @property
    def machine(self) -> Machine:
        return Machine(self.root, str(self.programs), (str(self.kernels),), self.environment)

    def write(self, path: str, text: str) -> Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def program(self, name: str, prints: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\necho '{prints}'\n")
        (self.programs / name).chmod(0o755)

    def kernel(self, name: str, *, tee: str = "gramine-sgx", image: Path | None = None) -> None:
        argv = [sys.executable, "-I", "-m", "sealbook.jupyter.gramine_launcher", f"--tee={tee}"]
        argv += ["--image", str(image)] if image else []
        (self.kernels / name).mkdir()
        spec = {"argv": argv, "display_name": name, "language": "python"}
        (self.kernels / name / "kernel.json").write_text(json.dumps(spec))

    def hardware(self, *, needed: bool = False) -> dict[str, Finding]:
        return _by_subject(doctor_hardware.examine(self.machine, needed=needed))

    def gramine(self) -> dict[str, Finding]:
        machine = self.machine
        return _by_subject(doctor_gramine.examine(machine, doctor_gramine.kernels(machine)))

    def collateral(self, *, needed: bool = False, now: datetime | None = None) -> dict[str, Finding]:
        return _by_subject(doctor_collateral.examine(self.machine, needed=needed, now=now))


def _by_subject(findings: Iterator[Finding]) -> dict[str, Finding]:
    found = list(findings)
    for finding in found:
        assert finding.status == OK or finding.remedy, finding
        assert "\n" not in finding.detail + finding.remedy
    return {finding.subject: finding for finding in found}


@pytest.fixture
def stand_in(tmp_path: Path, home: Path) -> StandIn:
    return StandIn(tmp_path)


# -- hardware --------------------------------------------------------------------------------------


def test_a_bare_machine_lacks_everything_and_each_line_says_what_mends_it(stand_in):
    found = stand_in.hardware() | stand_in.gramine() | stand_in.collateral()
    assert {finding.status for finding in found.values()} == {MISSING, OK}
    assert found["collateral service"].status == OK  # Intel's own is built in
    assert {name for name, finding in found.items() if finding.status == OK} == {"collateral service"}


def test_a_machine_with_everything_lacks_nothing(stand_in):
    stand_in.write("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sgx aes sgx_lc\n")
    for node in (0, 1):
        stand_in.write(f"/sys/devices/system/node/node{node}/x86/sgx_total_bytes", "68719476736\n")
    for device in ("/dev/sgx_enclave", "/dev/sgx_provision"):
        stand_in.write(device, "")
    (stand_in.root / "var/run/aesmd").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(stand_in.root)  # the name of a socket is short
        listener.bind("var/run/aesmd/aesm.socket")
        os.chdir(here)
        found = stand_in.hardware(needed=True)
    assert {finding.status for finding in found.values()} == {OK}
    assert found["enclave memory"].detail == "128.0 GiB on 2 nodes"


@pytest.mark.parametrize(
    ("flags", "detail"),
    [("fpu aes", "no SGX"), ("fpu sgx", "without flexible launch control"), ("fpu sgxx sgx_lcc", "no SGX")],
)
def test_a_processor_without_sgx_or_launch_control_is_said(stand_in, flags, detail):
    stand_in.write("/proc/cpuinfo", f"processor\t: 0\nflags\t\t: {flags}\n")
    assert detail in stand_in.hardware()["processor"].detail
    assert stand_in.hardware()["processor"].status == MISSING
    assert stand_in.hardware(needed=True)["processor"].status == TODO


def test_what_an_installed_hardware_kernel_needs_must_be_done(stand_in):
    found = stand_in.hardware(needed=True)
    assert {name for name, finding in found.items() if finding.status == TODO} == {
        "processor",
        "/dev/sgx_enclave",
        "AESM",
    }


def test_a_device_of_another_group_says_which_group_to_join(stand_in, monkeypatch):
    path = stand_in.write("/dev/sgx_enclave", "")
    path.chmod(0o660)
    monkeypatch.setattr(os, "access", lambda *_: False)
    real = Path.stat

    def of_group(self: Path, **options):
        found = real(self, **options)
        return os.stat_result((*found[:5], 2, *found[6:])) if self == path else found

    monkeypatch.setattr(Path, "stat", of_group)
    remedy = stand_in.hardware()["/dev/sgx_enclave"].remedy
    assert 'sudo usermod -aG bin "$USER"' in remedy or 'sudo usermod -aG 2 "$USER"' in remedy


def test_a_device_for_root_only_says_how_to_give_it_to_a_group(stand_in, monkeypatch):
    stand_in.write("/dev/sgx_provision", "").chmod(0o600)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "sudo chgrp sgx_prv /dev/sgx_provision" in stand_in.hardware()["/dev/sgx_provision"].remedy


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [("134217728\n", MISSING, "128.0 MiB"), ("8589934592", OK, "8.0 GiB"), ("many", MISSING, "unknown")],
)
def test_enclave_memory_is_read_and_little_or_unknown_is_said(stand_in, content, status, detail):
    stand_in.write("/sys/devices/system/node/node0/x86/sgx_total_bytes", content)
    found = stand_in.hardware()["enclave memory"]
    assert found.status == status
    assert detail in found.detail


@pytest.mark.parametrize(
    ("value", "status"), [("65530\n", MISSING), ("65531", OK), ("1048576", OK), ("", MISSING)]
)
def test_a_low_limit_of_mappings_is_said_with_the_command_that_raises_it(stand_in, value, status):
    stand_in.write("/proc/sys/vm/max_map_count", value)
    found = doctor_hardware.map_count(stand_in.machine)
    assert found.status == status
    if value.strip() == "65530":
        assert "sudo sysctl -w vm.max_map_count=1048576" in found.remedy


# -- Gramine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prints", "status"),
    [
        ("Gramine 1.9 (ff71d7a)", OK),
        ("Gramine 1.10 (x)", OK),
        ("Gramine 2.0", OK),
        ("Gramine 1.9post~UNRELEASED (x)", OK),
        ("Gramine 1.8 (x)", MISSING),
        ("Gramine 0.99", MISSING),
        ("something else", MISSING),
        ("", MISSING),
    ],
)
def test_gramine_must_be_there_and_new_enough(stand_in, prints, status):
    stand_in.program("gramine-direct", prints)
    found = stand_in.gramine()
    assert found["gramine-direct"].status == status
    assert found["gramine-sgx"].detail == "not on PATH"
    if status != OK:
        assert "https://gramine.readthedocs.io" in found["gramine-direct"].remedy


@pytest.mark.parametrize(
    ("tee", "needed", "other"),
    [("gramine-direct", "gramine-direct", "gramine-sgx"), ("gramine-sgx", "gramine-sgx", "gramine-direct")],
)
def test_what_an_installed_kernel_runs_with_must_be_there(stand_in, tee, needed, other):
    stand_in.kernel("mine", tee=tee)
    found = stand_in.gramine()
    assert found[needed].status == TODO
    assert found[other].status == MISSING
    assert found["gramine-manifest"].status == MISSING


def test_programs_that_only_build_images_are_found(stand_in):
    for name in ("gramine-manifest", "gramine-sgx-sign"):
        stand_in.program(name, "")
        assert stand_in.gramine()[name].status == OK


def test_other_and_damaged_kernelspecs_are_nobodys_business(stand_in):
    for name, text in (
        ("other", json.dumps({"argv": ["python"], "display_name": "x", "language": "python"})),
        ("damaged", "{"),
        ("empty", "{}"),
    ):
        (stand_in.kernels / name).mkdir()
        (stand_in.kernels / name / "kernel.json").write_text(text)
    assert doctor_gramine.kernels(stand_in.machine) == []


class ImageStandIn:
    """Stands in for sealbook.image.Image, which reads a real image."""

    found: tuple[str, ...] = ()
    asked: list[str] = []
    facts = types.SimpleNamespace(gramine="1.9")

    @classmethod
    def open(cls, path: Path) -> ImageStandIn:
        if (path / "broken").exists():
            raise InputError(f"{path} is no image.")
        return cls()

    def problems(self, tee: str) -> list[str]:
        self.asked.append(tee)
        return list(self.found)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sealbook.image.Image", ImageStandIn)
    monkeypatch.setattr(ImageStandIn, "asked", [])
    path = tmp_path / "image"
    path.mkdir()
    return path


def test_an_installed_kernel_is_shown_with_its_image(stand_in, image):
    stand_in.kernel("sealbook-gramine-sgx", image=image)
    stand_in.kernel("sealbook-gramine-direct", tee="gramine-direct", image=image)
    found = stand_in.gramine()
    assert found["kernel sealbook-gramine-sgx"] == Finding(
        "kernel sealbook-gramine-sgx", OK, f"{image}, for SGX"
    )
    assert found["kernel sealbook-gramine-direct"].detail == f"{image}, not attested"
    assert "Gramine kernels" not in found
    assert sorted(ImageStandIn.asked) == ["gramine-direct", "gramine-sgx"]


def test_what_is_wrong_with_an_image_must_be_done(stand_in, image, monkeypatch):
    stand_in.kernel("k", image=image)
    assert stand_in.gramine()["kernel k"].status == OK
    monkeypatch.setattr(ImageStandIn, "found", ("It is not signed.", "root/usr/bin/python3 was changed."))
    found = stand_in.gramine()["kernel k"]
    assert found.status == TODO
    assert "It is not signed. root/usr/bin/python3 was changed." in found.detail
    assert "sealbook image build" in found.remedy
    (image / "broken").touch()
    assert "is no image" in stand_in.gramine()["kernel k"].detail


@pytest.mark.parametrize(("here", "status"), [("1.9", OK), ("1.10", TODO), (None, OK)])
def test_an_image_for_another_gramine_must_be_built_again(stand_in, image, here, status):
    stand_in.kernel("k", tee="gramine-direct", image=image)
    if here is not None:
        stand_in.program("gramine-direct", f"Gramine {here} (x)")
    found = stand_in.gramine()["kernel k"]
    assert found.status == status
    if status == TODO:
        assert "built with Gramine 1.9, and this is 1.10" in found.detail


def test_the_kernelspecs_that_install_writes_are_recognised(stand_in, image):
    from sealbook.jupyter.kernelspec import gramine_kernel_json

    for tee in ("gramine-sgx", "gramine-direct"):
        (stand_in.kernels / tee).mkdir()
        spec = gramine_kernel_json(tee, policy=Path("/p.toml"), image=image)
        (stand_in.kernels / tee / "kernel.json").write_text(json.dumps(spec))
    assert doctor_gramine.kernels(stand_in.machine) == [
        doctor_gramine.GramineKernel("gramine-direct", False, image),
        doctor_gramine.GramineKernel("gramine-sgx", True, image),
    ]


def test_an_image_that_is_gone_or_not_named_must_be_done(stand_in, image):
    stand_in.kernel("gone", image=image / "nowhere")
    stand_in.kernel("unnamed")
    found = stand_in.gramine()
    assert (found["kernel gone"].status, found["kernel unnamed"].status) == (TODO, TODO)
    assert "is not there" in found["kernel gone"].detail
    assert "names no image" in found["kernel unnamed"].detail


# -- collateral ------------------------------------------------------------------------------------


def keep(expires: datetime) -> None:
    """Put the genuine collateral, whose QE identity ends at END, into the user's cache."""
    collateral = Collateral.from_json(GENUINE.read_bytes())
    fetched = expires - timedelta(days=29)
    CollateralCache(paths.collateral_cache_dir()).write(
        CachedCollateral("https://h/", "00a067110000", "processor", fetched, collateral)
    )


@pytest.fixture
def answering(stand_in: StandIn) -> Iterator[StandIn]:
    """A machine whose configured service answers, on loopback."""
    identity = Collateral.from_json(GENUINE.read_bytes())
    body = b'{"enclaveIdentity":%b,"signature":"%b"}' % (
        identity.qe_identity.encode(),
        identity.qe_identity_signature.hex().encode(),
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path == "/sgx/certification/v4/qe/identity"
            self.send_response(200 if good else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    stand_in.environment["SEALBOOK_PCCS"] = f"http://localhost:{server.server_address[1]}"
    yield stand_in
    server.shutdown()
    server.server_close()


def test_a_service_that_answers_is_shown_with_where_it_was_named(answering):
    found = answering.collateral()["collateral service"]
    assert found.status == OK
    assert "SEALBOOK_PCCS" in found.detail
    assert found.detail.endswith("answers")


def test_a_service_that_does_not_answer_must_be_done_only_where_a_kernel_needs_it(stand_in):
    stand_in.environment["SEALBOOK_PCCS"] = "https://127.0.0.1:1"
    found = stand_in.collateral()["collateral service"]
    assert found.status == MISSING
    assert "Connection refused" in found.detail
    assert stand_in.collateral(needed=True)["collateral service"].status == TODO
    keep(END)
    before = END - timedelta(days=5)
    assert stand_in.collateral(needed=True, now=before)["collateral service"].status == MISSING
    assert stand_in.collateral(needed=True, now=END)["collateral service"].status == TODO


def test_intels_own_service_is_not_asked_where_no_kernel_needs_it(stand_in, monkeypatch):
    asked = []
    monkeypatch.setattr(doctor_collateral, "probe", lambda service, **_: asked.append(service.url))
    assert "not asked" in stand_in.collateral()["collateral service"].detail
    assert asked == []
    stand_in.collateral(needed=True)
    assert asked == ["https://api.trustedservices.intel.com/sgx/certification/v4/"]


def test_an_address_or_authority_that_cannot_be_used_must_be_done(answering):
    paths.config_file().write_text('[pccs]\nca = "/nowhere/ca.pem"\n')
    found = answering.collateral()["collateral service"]
    assert (found.status, "/nowhere/ca.pem" in found.detail) == (TODO, True)
    answering.environment["SEALBOOK_PCCS"] = "http://pccs.example.org"
    found = answering.collateral()["collateral service"]
    assert (found.status, "plain http" in found.detail) == (TODO, True)


def test_intels_configuration_is_found_and_read(stand_in):
    assert stand_in.collateral()["QCNL"].status == MISSING
    path = stand_in.write(
        "/etc/sgx_default_qcnl.conf", '{"pccs_url": "https://127.0.0.1:1/sgx/certification/v4/"}'
    )
    found = stand_in.collateral()
    assert found["QCNL"].status == OK
    assert str(path) in found["collateral service"].detail


@pytest.mark.parametrize(
    ("left", "status", "remedy"),
    [
        (timedelta(days=5), OK, ""),
        (timedelta(days=1), MISSING, "while the service can be reached"),
        (timedelta(0), MISSING, "fetched anew"),
    ],
)
def test_kept_collateral_is_shown_with_its_end(stand_in, left, status, remedy):
    keep(END)
    found = stand_in.collateral(now=END - left)["collateral 00a067110000"]
    assert found.status == status
    assert "valid until 2025-07-19 10:01 UTC" in found.detail
    assert remedy in found.remedy


# -- the whole -------------------------------------------------------------------------------------


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(stand_in, monkeypatch):
    monkeypatch.setattr(doctor, "_installation", lambda: iter(()))  # measures everything; looked at elsewhere
    monkeypatch.setattr(doctor_gramine, "kernels", lambda machine: 1 / 0)
    found = _by_subject(doctor.examine(stand_in.machine))
    for subject in ("Gramine", "SGX", "collateral"):
        assert found[subject].status == TODO
        assert "ZeroDivisionError" in found[subject].detail
    assert found["Python"].status == OK
    assert "Java" in found


def test_the_whole_examination_of_a_stand_in_reads_nothing_of_this_machine(stand_in, monkeypatch):
    monkeypatch.setattr(doctor, "_installation", lambda: iter(()))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    stand_in.write("/proc/cpuinfo", "flags\t: sgx sgx_lc\n")
    stand_in.program("java", 'openjdk version "21.0.8" 2025-07-15')
    found = _by_subject(doctor.examine(stand_in.machine))
    assert found["processor"].status == OK
    assert found["Java"].status == OK
    assert found["gramine-direct"].detail == "not on PATH"
    assert found["collateral service"].status == OK
