"""`sealbook demo`: run a notebook on an attested kernel and say what happened."""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from sealbook.cli import console
from sealbook.cli.options import Json, size
from sealbook.errors import InputError, MissingDependencyError, RefusedError

KERNEL = "sealbook-simulated"


def demo(
    notebook: Annotated[Path, typer.Argument(help="The notebook to run.")] = Path(
        "notebooks/01-quickstart.ipynb"
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: executed/ beside the notebook.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a notebook with papermill on the simulated kernel, which is attested first."""
    from sealbook.cli.install import ensure
    from sealbook.cli.keyring_access import user_audit

    if not notebook.is_file():
        raise InputError(f"There is no notebook {notebook}: say which one to run.")
    output = output or notebook.parent / "executed" / notebook.name
    if output.exists() and output.samefile(notebook):
        raise InputError("The executed notebook would replace the one to run: choose another --output.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output.parent} cannot be made: {error.strerror}.") from None
    _check_notebook(notebook)
    started = time.perf_counter()
    _say(f"Making sure that the policy and the kernel '{KERNEL}' fit this installation ...")
    for sentence in ensure(name=KERNEL)["notes"]:
        console.note(sentence)
    prepared = time.perf_counter()
    before = sum(1 for _ in user_audit().entries())
    _say(f"Running {notebook} ...")
    executed = _execute(notebook, output, progress=not json)
    finished = time.perf_counter()
    entries = [entry for entry in user_audit().entries() if entry.get("seq", 0) > before]
    _summarise(executed, entries, output, prepared - started, finished - prepared)


def _check_notebook(path: Path) -> None:
    """Refuse what is no notebook before anything is prepared for it."""
    try:
        with warnings.catch_warnings():
            # tqdm.auto regrets that it has no widgets, which nobody needs at a terminal.
            warnings.simplefilter("ignore")
            import nbformat
            import papermill  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependencyError("papermill is not installed: `pip install 'sealbook[lab]'`.") from None
    try:
        nbformat.validate(nbformat.read(path, as_version=4))
    except Exception as error:  # nbformat has no common class for what can be wrong with a file
        raise InputError(f"{path} is not a notebook ({type(error).__name__}).") from None


def _execute(notebook: Path, output: Path, *, progress: bool) -> Any:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        return papermill.execute_notebook(
            str(notebook),
            str(output),
            kernel_name=KERNEL,
            engine_name="sealbook",
            cwd=str(notebook.parent),
            progress_bar=progress,
        )
    except PapermillExecutionError as error:
        raise RefusedError(
            f"Cell {error.cell_index + 1} of {notebook} failed ({error.ename}: {str(error.evalue)[:200]}); "
            f"its output is in {output}."
        ) from None


def _summarise(
    executed: Any, entries: list[dict[str, Any]], output: Path, prepared: float, ran: float
) -> None:
    from sealbook.attestation import AttestationResult

    recorded = executed.metadata.get("sealbook", {}).get("attestation")
    result = AttestationResult.from_dict(recorded) if recorded else None
    artifacts = [entry["facts"] for entry in entries if entry.get("action") == "sealed"]
    slowest = sorted(
        (
            (cell.metadata.get("papermill", {}).get("duration") or 0.0, number)
            for number, cell in enumerate(executed.cells, 1)
        ),
        reverse=True,
    )[:3]
    document = {
        "attestation": recorded,
        "summary": result.summary() if result else None,
        "artifacts": artifacts,
        "keys": sorted({entry["key"] for entry in entries if entry.get("decision") == "released"}),
        "seconds": {"preparing": round(prepared, 2), "running": round(ran, 2)},
        "notebook": str(output),
    }
    if console.emit(document):
        return
    rows: list[tuple[str, str]] = [("attestation", result.summary() if result else "none recorded")]
    rows += [("artifact", _artifact(facts)) for facts in artifacts]
    rows += [("keys", ", ".join(document["keys"]) or "none")]
    rows += [("time", f"{ran:.1f} s running, {prepared:.1f} s preparing")]
    rows += [("slowest cells", ", ".join(f"{number} ({seconds:.1f} s)" for seconds, number in slowest))]
    rows += [("notebook", str(output))]
    console.table(["", ""], rows)
    if shutil.which("sealbook") is None:
        activate = Path(sys.prefix, "bin", "activate")
        console.line(f"To have `sealbook`, `papermill` and `jupyter` in this shell: source {activate}")


def _artifact(facts: dict[str, Any]) -> str:
    details = [str(facts[name]) for name in ("codec", "key") if facts.get(name)]
    if isinstance(facts.get("size"), int):
        details.insert(0, size(facts["size"]))
    return f"{facts.get('path', '?')} ({', '.join(details)})"


def _say(text: str) -> None:
    console.line(text)
