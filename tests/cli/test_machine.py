"""`install`, `doctor` and `demo`: the commands that look at, and change, this installation."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest

from sealbook.attestation import AttestationResult, Policy, policy_text
from sealbook.attestation.simulated import Measurement, SimulatedPlatform
from sealbook.broker import AuditLog
from sealbook.cli import machine

from .conftest import Outcome, run_process

OTHER = Measurement(b"\x11" * 32)


class User:
    """A user who has run `sealbook install`; commands run as processes of their own."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.policy = self.home / "policies" / "simulated.toml"
        self.kernels = directory / "jupyter" / "kernels"
        self.environment = {
            "SEALBOOK_HOME": str(self.home),
            "JUPYTER_DATA_DIR": str(directory / "jupyter"),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }

    def run(self, *arguments: object, status: int | None = 0, **environment: str) -> Outcome:
        outcome = run_process(*arguments, environment=self.environment | environment)
        assert status in (None, outcome.status), outcome
        return outcome

    def write_policy_of_other_code(self) -> None:
        platform = SimulatedPlatform.load_or_create(self.home / "simulated-platform")
        self.policy.write_text(
            policy_text(
                id="simulated",
                mrenclave=OTHER.mrenclave,
                root=platform.root_certificate,
                now=datetime.now(UTC),
            )
        )


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> User:
    user = User(tmp_path_factory.mktemp("user"))
    user.run("install", "--quiet")
    return user


@pytest.fixture
def user(installation) -> User:
    """The same user; what a test changes is put right before the next."""
    policy = installation.policy.read_bytes()
    yield installation
    installation.policy.write_bytes(policy)
    for path in installation.home.glob("audit.jsonl*"):
        path.unlink()


def findings(outcome: Outcome) -> dict[str, dict]:
    return {finding["subject"]: finding for finding in outcome.json["findings"]}


# -- install -------------------------------------------------------------------------------------


def test_install_writes_a_policy_and_a_kernelspec_that_fit(user):
    spec = json.loads((user.kernels / "sealbook-simulated" / "kernel.json").read_text())
    assert spec["argv"][0] == sys.executable
    assert spec["metadata"]["kernel_provisioner"]["config"] == {"policy": str(user.policy)}
    assert "simulated" in spec["display_name"]
    assert Policy.load(user.policy).simulated


def test_installing_again_changes_nothing(user):
    before = user.policy.read_bytes()
    done = user.run("install", "--json").json
    assert done["notes"] == []
    assert done["simulated"] is True
    assert user.policy.read_bytes() == before
    assert user.run("install", "-q") == Outcome(0, "", "")


def test_changed_code_is_approved_by_installing_again_and_that_is_said_and_recorded(user):
    user.write_policy_of_other_code()
    before = user.policy.read_bytes()
    outcome = user.run("install", "--quiet")
    assert "installed code changed" in outcome.err
    assert user.policy.with_name("simulated.toml.old").read_bytes() == before
    *_, entry = AuditLog(user.home / "audit.jsonl").entries()
    measured = Policy.load(user.policy).identities[0].mrenclave[0]
    assert (entry["event"], entry["decision"], entry["measurement"]) == ("policy", "approved", measured.hex())


def test_a_kernel_is_installed_under_another_name_place_and_policy(user, tmp_path):
    user.write_policy_of_other_code()
    done = user.run("install", "--prefix", tmp_path, "--name", "mine", "--policy", user.policy, "--json").json
    assert done["kernelspec"] == str(tmp_path / "share" / "jupyter" / "kernels" / "mine")
    assert Path(done["kernelspec"], "kernel.json").exists()


def test_a_place_that_cannot_be_written_is_one_line(user):
    outcome = user.run("install", "--prefix", "/proc/nowhere", status=2)
    assert outcome.err.startswith("sealbook: The kernelspec cannot be written: ")
    assert outcome.err.count("\n") == 1


# -- whether a policy fits -----------------------------------------------------------------------


@pytest.fixture
def fitting(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))
    path = machine.policy_path()
    machine.write_policy(path, machine.simulated_policy_text(OTHER))
    assert machine.check_policy(path, OTHER).ok
    return path


def test_a_policy_for_other_code_does_not_fit(fitting):
    assert "code changed" in machine.check_policy(fitting, Measurement(b"\x22" * 32)).detail


def test_a_policy_for_another_platform_does_not_fit(fitting, tmp_path):
    other = SimulatedPlatform.load_or_create(tmp_path / "other")
    fitting.write_text(
        policy_text(mrenclave=OTHER.mrenclave, root=other.root_certificate, now=datetime.now(UTC))
    )
    assert "another platform" in machine.check_policy(fitting, OTHER).detail


def test_an_expired_policy_does_not_fit(fitting):
    platform = SimulatedPlatform.load_or_create(machine.paths.simulated_platform_dir())
    past = datetime.now(UTC) - timedelta(days=10)
    fitting.write_text(
        policy_text(mrenclave=OTHER.mrenclave, root=platform.root_certificate, now=past, days=5)
    )
    assert "expired" in machine.check_policy(fitting, OTHER).detail


def test_a_missing_or_broken_policy_does_not_fit(fitting):
    fitting.write_text("schema = 1\nbogus = 2\n")
    assert not machine.check_policy(fitting, OTHER).ok
    fitting.unlink()
    assert "missing" in machine.check_policy(fitting, OTHER).detail


# -- doctor --------------------------------------------------------------------------------------


def test_doctor_finds_an_installed_machine_in_order(user):
    user.run("install", "--quiet")
    found = findings(user.run("doctor", "--json"))
    for subject in ("Python", "cryptography", "dcap-qvl", "ipykernel", "policy", "kernelspec", "audit log"):
        assert found[subject]["status"] == "ok", found[subject]
    assert "simulated" in found["policy"]["detail"]
    for finding in found.values():
        assert finding["status"] in ("ok", "missing", "to do")
        assert finding["remedy"] or finding["status"] == "ok", finding
    assert {
        "/dev/sgx_enclave",
        "/dev/sgx_provision",
        "AESM",
        "gramine-direct",
        "gramine-sgx",
        "Java",
        "keyring",
    } <= set(found)
    shown = user.run("doctor").out
    for subject in found:
        assert subject in shown


def test_doctor_says_what_to_do_about_changed_code_and_a_missing_kernel(user):
    user.write_policy_of_other_code()
    outcome = user.run("doctor", "--json", status=1, JUPYTER_DATA_DIR=str(user.home / "nowhere"))
    found = findings(outcome)
    assert found["policy"]["status"] == "to do"
    assert "sealbook install" in found["policy"]["remedy"]
    assert found["kernelspec"]["status"] == "to do"
    assert outcome.json["ok"] is False


def test_doctor_finds_a_kernel_of_another_python(user):
    path = user.kernels / "sealbook-simulated" / "kernel.json"
    before = path.read_text()
    try:
        path.write_text(before.replace(sys.executable, "/usr/bin/python-of-another"))
        assert "another Python" in findings(user.run("doctor", "--json", status=1))["kernelspec"]["detail"]
        path.write_text("{")
        assert "damaged" in findings(user.run("doctor", "--json", status=1))["kernelspec"]["detail"]
        path.write_text(before.replace("simulated.toml", "another.toml"))
        assert "another policy" in findings(user.run("doctor", "--json", status=1))["kernelspec"]["detail"]
    finally:
        path.write_text(before)


def test_doctor_finds_a_changed_audit_log_and_a_keyring_that_others_can_read(user):
    AuditLog(user.home / "audit.jsonl").append("x")
    (user.home / "audit.jsonl.head").unlink()
    keyring_file = user.home / "keyring.sealbook"
    keyring_file.write_text("{}")
    keyring_file.chmod(0o644)
    try:
        found = findings(user.run("doctor", "--json", status=1))
    finally:
        keyring_file.unlink()
    assert "head file is missing" in found["audit log"]["detail"]
    assert found["keyring"]["remedy"] == f"chmod 600 {keyring_file}"


def program(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    (directory / name).chmod(0o755)


def test_doctor_reads_the_versions_of_programs_and_misses_them_plainly(user, tmp_path):
    program(tmp_path / "bin", "java", 'openjdk version "11.0.2" 2019-01-15')
    program(tmp_path / "bin", "gramine-sgx", "Gramine 1.9")

    def found_with(path: object) -> dict[str, dict]:
        return findings(user.run("doctor", "--json", status=None, PATH=str(path), JAVA_HOME=""))

    found = found_with(tmp_path / "bin")
    assert (found["Java"]["status"], found["Java"]["remedy"]) == ("missing", "Spark needs Java 17 or newer")
    assert (found["gramine-sgx"]["status"], found["gramine-sgx"]["detail"]) == ("ok", "Gramine 1.9")
    assert found["gramine-direct"]["status"] == "missing"
    program(tmp_path / "bin", "java", 'openjdk version "21.0.8" 2025-07-15')
    assert found_with(tmp_path / "bin")["Java"]["status"] == "ok"
    assert found_with("")["Java"]["detail"] == "not found"


# -- demo ----------------------------------------------------------------------------------------


def notebook(path: Path, *cells: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def test_demo_runs_a_notebook_on_the_attested_kernel_and_sums_up(user, tmp_path):
    source = notebook(
        tmp_path / "n.ipynb",
        "import sealbook; sealbook.seal('text', 'x.sealed')",
        "sealbook.unseal('x.sealed')",
    )
    outcome = user.run("demo", source, "--json")
    document = outcome.json
    result = AttestationResult.from_dict(document["attestation"])
    assert result.accepted
    assert result.simulated
    assert "simulated" in document["summary"]
    assert [artifact["path"] for artifact in document["artifacts"]] == ["x.sealed"]
    assert document["keys"] == ["session/default"]
    executed = nbformat.read(document["notebook"], 4)
    assert executed.cells[1].outputs[0].data["text/plain"] == "'text'"
    assert Path(document["notebook"]) == tmp_path / "executed" / "n.ipynb"
    assert (tmp_path / "x.sealed").exists()


def test_demo_shows_a_short_summary(user, tmp_path):
    outcome = user.run(
        "demo", notebook(tmp_path / "n.ipynb", "1 + 1"), "--output", tmp_path / "out" / "o.ipynb"
    )
    for expected in ("Attested simulated enclave", "slowest cells", str(tmp_path / "out" / "o.ipynb")):
        assert expected in outcome.out
    assert "Traceback" not in outcome.err


def test_demo_says_in_one_line_which_cell_failed(user, tmp_path):
    outcome = user.run("demo", notebook(tmp_path / "n.ipynb", "1", "1 / 0"), "--json", status=1)
    assert "ZeroDivisionError" in outcome.json["error"]
    assert outcome.err.rstrip("\n").rpartition("\n")[2].startswith("sealbook: Cell 2 of")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("content", ["", "text", "{}", '{"nbformat": 99}'])
def test_demo_refuses_what_is_no_notebook(user, tmp_path, content):
    (tmp_path / "n.ipynb").write_text(content)
    outcome = user.run("demo", tmp_path / "n.ipynb", "--json", status=2)
    assert "is not a notebook" in outcome.json["error"]
    assert "Traceback" not in outcome.err


def test_demo_does_not_approve_changed_code(user, tmp_path):
    user.write_policy_of_other_code()
    before = user.policy.read_bytes()
    outcome = user.run("demo", notebook(tmp_path / "n.ipynb", "1 + 1"), status=1)
    assert "`sealbook install` approves it" in outcome.err
    assert user.policy.read_bytes() == before
