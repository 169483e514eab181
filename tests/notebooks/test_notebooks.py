"""The notebooks run as a person would run them, and are committed clean."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
COMMITTED = sorted(NOTEBOOKS.glob("*.ipynb"))


def execute(name: str, kernel: str, directory: Path, **kwargs: Any) -> Any:
    shutil.copy(NOTEBOOKS / name, directory / name)
    papermill.execute_notebook(
        directory / name,
        directory / "executed.ipynb",
        kernel_name=kernel,
        cwd=str(directory),
        progress_bar=False,
        **kwargs,
    )
    return nbformat.read(directory / "executed.ipynb", as_version=4)


def shown(notebook: Any, kind: str) -> str:
    """Return everything that the notebook shows as one MIME type; streams count as plain text."""
    texts = []
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.output_type == "stream":
            texts.append(output.text if kind == "text/plain" else "")
        else:
            texts.append(output.get("data", {}).get(kind, ""))
    return "\n".join(texts)


def test_there_are_the_five_notebooks() -> None:
    assert [path.name for path in COMMITTED] == [
        "01-quickstart.ipynb",
        "02-what-attestation-proves.ipynb",
        "03-chain-of-trust.ipynb",
        "04-who-can-read-this.ipynb",
        "05-scale-unchanged.ipynb",
    ]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_a_committed_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "sealbook-simulated"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notebooks_are_clean_for_ruff() -> None:
    subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", str(NOTEBOOKS)], check=True)
    subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--no-cache", "--check", str(NOTEBOOKS)], check=True
    )


def test_the_quickstart_attests_seals_trains_and_predicts(kernel_name: str, tmp_path: Path) -> None:
    executed = execute("01-quickstart.ipynb", kernel_name, tmp_path, engine_name="sealbook")
    plain, page = shown(executed, "text/plain"), shown(executed, "text/html")
    assert "Simulated enclave" in plain
    assert "no hardware protects it" in page
    assert "True" in plain
    assert "was not unsealed" in plain
    assert "classified correctly" in plain
    assert "session/quickstart" in plain
    assert executed.metadata.sealbook.attestation.simulated is True
    assert {path.name for path in (tmp_path / "sealed").iterdir()} == {
        "patients.sealed",
        "changed.sealed",
        "model.sealed",
    }
    for path in (tmp_path / "sealed").iterdir():
        content = path.read_bytes()
        assert content.startswith(b"SEALBOOK")
        assert b"PAR1" not in content
        assert b"config.json" not in content


def test_the_quickstart_stops_at_attest_in_a_kernel_that_is_not_attested(tmp_path: Path) -> None:
    loaded = nbformat.read(NOTEBOOKS / "01-quickstart.ipynb", as_version=4)
    loaded.cells.insert(0, nbformat.v4.new_code_cell("%load_ext sealbook"))
    nbformat.write(loaded, tmp_path / "in.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="not attested"):
        papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            kernel_name="python3",
            cwd=str(tmp_path),
            progress_bar=False,
        )
    assert not (tmp_path / "sealed").exists()


def test_every_forgery_of_the_lesson_is_refused_by_the_check_that_it_teaches(
    kernel_name: str, tmp_path: Path
) -> None:
    executed = execute("02-what-attestation-proves.ipynb", kernel_name, tmp_path)
    page, plain = shown(executed, "text/html"), shown(executed, "text/plain")
    rows = page.count("<tr>") - 1
    assert rows == 16
    assert "simulated" in plain
    for check in EXPECTED:
        assert f">{check}<" in page, check


def test_the_walk_along_the_chain_verifies_a_genuine_quote_and_breaks_every_link_of_it(
    kernel_name: str, tmp_path: Path
) -> None:
    executed = execute("03-chain-of-trust.ipynb", kernel_name, tmp_path)
    page, plain = shown(executed, "text/html"), shown(executed, "text/plain")
    assert "Attested genuine SGX enclave" in plain
    assert "Hello, world!" in plain
    assert "collateral-time" in plain
    for link in ("Quote", "Quoting enclave", "TCB info", "QE identity", "Revocation lists", "Policy"):
        assert f">{link}</td>" in page, link
    assert "PCK CA, Root, TCB signer" in page  # a platform under a root of one's own
    assert "refused: qe-signature" in plain
    # The kernel's own panel at the end, and nothing that only lives in a browser.
    assert "Simulated enclave: no hardware protects it" in page
    assert "widgets" not in executed.metadata


def test_the_walk_takes_another_byte_as_a_parameter(kernel_name: str, tmp_path: Path) -> None:
    loaded = nbformat.read(NOTEBOOKS / "03-chain-of-trust.ipynb", as_version=4)
    (chosen,) = [cell for cell in loaded.cells if "parameters" in cell.metadata.get("tags", [])]
    assert chosen.source == "place = 950"
    executed = execute("03-chain-of-trust.ipynb", kernel_name, tmp_path, parameters={"place": 176})
    assert "refused: measurement" in shown(executed, "text/plain") or "refused: signature" in shown(
        executed, "text/plain"
    )


def test_nobody_reads_the_secret_but_a_host_that_looks_into_the_memory_of_a_simulated_enclave(
    kernel_name: str, tmp_path: Path
) -> None:
    executed = execute("04-who-can-read-this.ipynb", kernel_name, tmp_path)
    plain = shown(executed, "text/plain")
    assert "the secret is in them: False" in plain
    assert "OPENED" not in plain
    # What the host finds in memory depends on whether the system lets it look; both are said honestly.
    assert "FOUND THE SECRET" in plain or "not allowed to look" in plain
    assert plain.count("heard nothing; turned away: True") == 2
    assert "made for another challenge, channel or purpose" in plain
    assert plain.count("refused: ") >= 2
    assert "the log is whole: True" in plain
    assert "data-state=" in shown(executed, "text/html")


#: Checks that the lesson's table names: a change of the verifier must not silently empty the lesson.
EXPECTED = (
    "debug",
    "fmspc",
    "measurement",
    "qe-binding",
    "qe-signature",
    "quote-format",
    "report-data",
    "revoked",
    "signature",
    "tcb-status",
    "trust-root",
)
