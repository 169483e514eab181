"""`papermill --engine sealbook` runs nothing in a kernel that is not attested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillExecutionError

from sealbook.attestation import AttestationRefusedError, AttestationResult
from sealbook.batch import engine
from sealbook.batch.engine import AttestedEngine, AttestedNotebookClient
from sealbook.errors import RefusedError


def notebook(path: Path, *cells: str) -> Path:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(made, path)
    return path


def execute(source: Path, target: Path, kernel: str, **kwargs: Any) -> Any:
    return papermill.execute_notebook(
        source, target, engine_name="sealbook", kernel_name=kernel, progress_bar=False, **kwargs
    )


def test_papermill_finds_the_engine_by_its_entry_point() -> None:
    assert papermill_engines.get_engine("sealbook") is AttestedEngine


def test_an_attested_kernel_runs_and_the_result_is_recorded(kernel_name: str, tmp_path: Path) -> None:
    source = notebook(tmp_path / "in.ipynb", "%attest", "6 * 7")
    execute(source, tmp_path / "out.ipynb", kernel_name, parameters={"alpha": 1})
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    nbformat.validate(executed)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "42"
    recorded = executed.metadata["sealbook"]
    result = AttestationResult.from_dict(recorded["attestation"])
    assert result.accepted
    assert result.simulated
    assert "simulated" in recorded["summary"]


def test_a_magic_that_fails_stops_the_run(kernel_name: str, tmp_path: Path) -> None:
    source = notebook(tmp_path / "in.ipynb", "%unseal missing.sealed", "open('ran', 'w')")
    with pytest.raises(PapermillExecutionError, match=r"missing\.sealed"):
        execute(source, tmp_path / "out.ipynb", kernel_name, cwd=str(tmp_path))
    assert not (tmp_path / "ran").exists()
    failed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    (error,) = [out for cell in failed.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    assert len(error.traceback) == 1
    assert "Traceback" not in error.traceback[0]


def test_the_plain_engine_runs_in_an_attested_kernel_too(kernel_name: str, tmp_path: Path) -> None:
    source = notebook(tmp_path / "in.ipynb", "%attest\n6 * 7")
    executed = papermill.execute_notebook(
        source, tmp_path / "out.ipynb", kernel_name=kernel_name, progress_bar=False
    )
    assert executed.cells[-1].outputs[-1].data["text/plain"] == "42"


def test_an_unattested_kernel_is_refused_before_any_cell_runs_and_is_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    managers: list[Any] = []
    started = AttestedNotebookClient.start_new_kernel

    def watched(self: Any, **kwargs: Any) -> Any:
        managers.append(self.km)
        return started(self, **kwargs)

    monkeypatch.setattr(AttestedNotebookClient, "start_new_kernel", watched)
    source = notebook(tmp_path / "in.ipynb", "open('ran', 'w')")
    with pytest.raises(RefusedError, match="'python3' is not attested, so no cell was run") as caught:
        execute(source, tmp_path / "out.ipynb", "python3", cwd=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    (manager,) = managers
    assert not manager.has_kernel


class _KernelManager:
    """A stand-in for a kernel manager, because no real one comes with a refused or a forged result."""

    class Provisioner:
        attestation: Any = None

    def __init__(self, attestation: Any) -> None:
        self.provisioner = self.Provisioner()
        self.provisioner.attestation = attestation


def client_with(attestation: Any) -> AttestedNotebookClient:
    class Managed:
        nb = nbformat.v4.new_notebook()

    client = AttestedNotebookClient(Managed(), kernel_name="some-kernel")
    client.km = _KernelManager(attestation)
    return client


@pytest.mark.parametrize("attestation", [None, True, {"accepted": True}, "attested", object()])
def test_only_a_result_of_the_verifier_counts(attestation: Any) -> None:
    with pytest.raises(RefusedError, match="not attested"):
        client_with(attestation)._required_result()


def test_a_refused_result_is_refused_with_its_reason(brokered: Any) -> None:
    import dataclasses

    from sealbook.attestation import Refusal

    refused = dataclasses.replace(
        brokered.remote.result(),
        accepted=False,
        identity="",
        refusals=(Refusal("identity", "Other code.", "Start it."),),
    )
    with pytest.raises(AttestationRefusedError, match="Other code"):
        client_with(refused)._required_result()


def test_a_kernel_that_its_policy_admits_without_evidence_is_refused_here(unattested: Any) -> None:
    client = client_with(unattested.remote.result())
    client.nb.cells = [nbformat.v4.new_code_cell("1")]
    for door in (client._required_result, client.papermill_execute_cells):
        with pytest.raises(RefusedError, match="not attested, because it runs in gramine-direct") as refused:
            door()
        assert "-k sealbook-gramine-sgx" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_cells_do_not_run_with_a_client_that_was_made_elsewhere() -> None:
    client = client_with(None)
    client.nb.cells = [nbformat.v4.new_code_cell("1")]
    with pytest.raises(RefusedError, match="not attested"):
        client.papermill_execute_cells()


def test_what_an_earlier_run_recorded_never_speaks_for_a_refused_one(tmp_path: Path) -> None:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell("1")]
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    made.metadata[engine.METADATA] = {"attestation": {"accepted": True}}
    nbformat.write(made, tmp_path / "in.ipynb")
    with pytest.raises(RefusedError):
        execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", "python3")
    assert engine.METADATA not in nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata


def test_the_method_that_is_overridden_is_the_one_that_is_called() -> None:
    # nbclient binds the synchronous twin when its class is made; overriding the other one fails open.
    assert "start_new_kernel_client" in vars(AttestedNotebookClient)
    assert "papermill_execute_cells" in vars(AttestedNotebookClient)
