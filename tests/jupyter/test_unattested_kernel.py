"""A whole kernel that is not attested, through the real provisioner, broker, magics and papermill.

Its entry point is a stand-in for the one inside Gramine: the same kernel application with the attester that
Gramine without SGX leaves it, in an ordinary process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from helpers import kernel, run
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from sealbook.attestation import policy_text
from sealbook.errors import RefusedError, SealbookError
from sealbook.jupyter.kernelspec import kernel_json

NAME = "sealbook-stand-in-direct"


def start_with(attester: str) -> list[str]:
    """Return a command line of the kernel application with this attester."""
    return [
        sys.executable,
        "-I",
        "-B",
        "-c",
        "from pathlib import Path\n"
        "from sealbook.attestation import GramineAttester, open_attester\n"
        "from sealbook.jupyter.kernelapp import AttestedKernelApp\n"
        f"AttestedKernelApp.launch_instance(attester={attester})",
    ]


Install = Callable[..., str]


@pytest.fixture
def install(user_home: Path, tmp_path: Path) -> Install:
    """Install a kernel with its policy; returns its name."""

    def install(policy: Path | None = None, argv: list[str] | None = None) -> str:
        if policy is None:
            policy = tmp_path / "direct.toml"
            policy.write_text(policy_text(id="direct", tee="gramine-direct", now=datetime.now(UTC)))
        directory = tmp_path / "spec"
        directory.mkdir()
        # A directory without attestation files, as it is in Gramine without SGX.
        direct = start_with(f"open_attester(Path({str(tmp_path)!r}))")
        spec = kernel_json(policy) | {"argv": argv or direct, "display_name": NAME}
        (directory / "kernel.json").write_text(json.dumps(spec))
        KernelSpecManager().install_kernel_spec(str(directory), kernel_name=NAME, user=True)
        return NAME

    return install


def test_it_starts_under_the_policy_that_names_it_and_says_what_it_is_everywhere(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = install()
    with caplog.at_level(logging.INFO), kernel(name, cwd=str(tmp_path)) as (manager, client):
        result = manager.provisioner.attestation
        assert (result.accepted, result.attested, result.label) == (True, False, "not attested")
        shown = run(client, "%attest")
        assert shown.status == "ok"
        assert "Not attested" in shown.text
        assert run(client, "%attest --fresh").status == "ok"
        sealed = run(client, "import sealbook; sealbook.seal([1, 2], 'x.sealed')")
        assert "not attested" in (sealed.result or "")
        assert run(client, "sealbook.unseal('x.sealed')").result == "[1, 2]"
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert any("This kernel is not attested" in record.getMessage() for record in warned)


def assert_refused(name: str, said: str, **kwargs: Any) -> SealbookError:
    manager = KernelManager(kernel_name=name)
    with pytest.raises(RefusedError, match=said) as refused:
        manager.start_kernel(**kwargs)
    assert "\n" not in str(refused.value)
    assert not manager.has_kernel
    with contextlib.suppress(Exception):
        manager.cleanup_resources()
    return refused.value


def test_it_is_refused_under_the_policy_of_the_simulated_kernel(install: Install, policy_file: Path) -> None:
    assert_refused(install(policy_file), "not attested: it runs in Gramine without SGX")


def test_it_is_refused_under_a_policy_for_hardware(install: Install, tmp_path: Path) -> None:
    policy = tmp_path / "hardware.toml"
    policy.write_text(policy_text(mrenclave=b"\x11" * 32, now=datetime.now(UTC)))
    error = assert_refused(install(policy), "not attested")
    assert "tee = 'gramine-direct'" in str(error)


def test_an_attested_kernel_is_refused_under_a_policy_for_such_kernels(
    install: Install, policy_file: Path
) -> None:
    simulated = [sys.executable, "-I", "-B", "-m", "sealbook.jupyter.simulated_kernel"]
    assert_refused(install(argv=simulated), "admits only kernels of tee 'gramine-direct'")


def test_a_kernel_whose_attestation_fails_ends_with_one_line_and_does_not_pass_for_unattested(
    install: Install, tmp_path: Path
) -> None:
    (tmp_path / "attestation_type").write_bytes(b"dcap")
    with open(tmp_path / "said", "w+") as said:
        assert_refused(install(), "ended before it attested itself", stderr=said)
        said.seek(0)
        (line,) = [line for line in said.read().splitlines() if line.strip()]
    assert line.startswith("sealbook kernel: Gramine's ")
    assert "user_report_data cannot be written" in line


def notebook(path: Path, *cells: str) -> Path:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    made.metadata["kernelspec"] = {"name": NAME, "language": "python", "display_name": NAME}
    nbformat.write(made, path)
    return path


def test_papermill_runs_it_and_the_sealbook_engine_refuses_it_before_any_cell(
    install: Install, tmp_path: Path
) -> None:
    source = notebook(tmp_path / "in.ipynb", "%attest\nopen('ran', 'w').close()\n6 * 7")
    arguments = {"kernel_name": install(), "progress_bar": False, "cwd": str(tmp_path)}
    with pytest.raises(RefusedError, match="not attested, because it runs in gramine-direct"):
        papermill.execute_notebook(source, tmp_path / "no.ipynb", engine_name="sealbook", **arguments)
    assert not (tmp_path / "ran").exists()
    executed = papermill.execute_notebook(source, tmp_path / "out.ipynb", **arguments)
    assert executed.cells[-1].outputs[-1].data["text/plain"] == "42"
    assert (tmp_path / "ran").exists()
