"""The architecture as a test: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "kernel/sealbook"

FOUNDATION = {
    "errors",
    "encoding",
    "files",
    "paths",
    "pandas_urls",
    "jdk",
    "spark_files",
    "image_owner",
    "lifeline",
}
#: Layer -> what it may import of sealbook, beside itself and the foundation.
MAY_IMPORT = {name: set() for name in FOUNDATION} | {
    "attestation": set(),
    "sealing": set(),
    "simulated_loader": {"attestation"},
    "broker": {"attestation", "sealing"},
    "session": {"attestation", "sealing", "broker"},
    "artifacts": {"attestation", "sealing", "broker", "session"},
}
_BELOW_THE_FACES = set(MAY_IMPORT) - FOUNDATION
MAY_IMPORT |= {
    "spark": _BELOW_THE_FACES | {"image"},
    "jupyter": _BELOW_THE_FACES | {"image", "spark"},
    "batch": _BELOW_THE_FACES | {"jupyter"},
    "image": {"attestation"},
    "cli": _BELOW_THE_FACES | {"jupyter", "batch", "image", "spark"},
}
#: Third-party packages that a layer must be able to live without.
MUST_NOT_NEED = {
    "attestation": {"IPython", "ipykernel", "jupyter_client", "zmq", "papermill", "traitlets", "typer"},
    "sealing": {
        "IPython",
        "ipykernel",
        "jupyter_client",
        "zmq",
        "papermill",
        "traitlets",
        "typer",
        "dcap_qvl",
    },
    "broker": {"IPython", "ipykernel", "jupyter_client", "zmq", "papermill", "traitlets", "typer"},
}

#: All but the package itself, which names the faces that it loads lazily.
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or not p.stem.startswith("__"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    layer = layer_of(path)
    used = {n.split(".")[1] for n in imported(path) if n.startswith("sealbook.") and "." in n}
    used -= FOUNDATION | {layer, "__version__"}
    assert used <= MAY_IMPORT[layer]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lower_layers_know_nothing_of_the_faces_packages(path: Path) -> None:
    forbidden = MUST_NOT_NEED.get(layer_of(path), set())
    assert not {name.split(".")[0] for name in imported(path)} & forbidden


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_pickle(path: Path) -> None:
    unsafe = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert not {name.split(".")[0] for name in imported(path)} & unsafe
