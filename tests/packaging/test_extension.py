"""The JupyterLab extension as it is built, locked and installed."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "extension"
BUILT = EXTENSION / "build/labextension"
#: What the extension may add to JupyterLab's load, in bytes after gzip.
BUDGET = 60_000


@pytest.fixture(scope="module")
def package() -> dict[str, dict[str, str]]:
    return dict(json.loads((EXTENSION / "package.json").read_text()))


@pytest.fixture(scope="module")
def built() -> Path:
    assert (BUILT / "package.json").is_file(), "The JupyterLab extension is not built: run .ci/extension."
    return BUILT


def test_it_adds_little_to_what_jupyterlab_loads(built: Path) -> None:
    # All chunks: each of them is loaded when JupyterLab starts.
    size = sum(len(gzip.compress(path.read_bytes())) for path in (built / "static").glob("*.js"))
    assert 1000 < size <= BUDGET


def test_react_and_jupyterlab_are_not_packed_into_it(built: Path) -> None:
    text = "".join(path.read_text() for path in (built / "static").glob("*.js"))
    assert "react.production" not in text
    assert "dangerouslySetInnerHTML" not in text
    assert not re.search(r"\.innerHTML\s*=", text)


def test_the_lock_names_no_registry() -> None:
    assert not re.search(r"https?://|registry\.|@file:", (EXTENSION / "yarn.lock").read_text())


def test_every_package_of_jupyterlab_is_pinned_and_locked_at_its_pin(
    package: dict[str, dict[str, str]],
) -> None:
    pins = package["resolutions"]
    locked = dict(
        re.findall(r'resolution: "(@jupyterlab/[^@"]+)@npm:([^"]+)"', (EXTENSION / "yarn.lock").read_text())
    )
    used = {
        n
        for group in ("dependencies", "devDependencies")
        for n in package[group]
        if n.startswith("@jupyterlab/")
    }
    assert used <= set(pins)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pins.values())
    assert {name: pins[name] for name in locked if name in pins} == {
        n: v for n, v in locked.items() if n in pins
    }
    assert used <= set(locked)


def test_the_version_is_the_packages_version(package: dict[str, dict[str, str]]) -> None:
    assert f'version = "{package["version"]}"' in (ROOT / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def wheel(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_fresh_install_of_the_wheel_shows_it(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin/python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True
    )
    # The dependencies, JupyterLab among them, are those that the locked environment has.
    site = next((environment / "lib").glob("python*")) / "site-packages"
    ours = next((Path(sys.prefix) / "lib").glob("python*")) / "site-packages"
    (site / "locked.pth").write_text(f"{ours}\n")
    shutil.copytree(
        Path(sys.prefix) / "share/jupyter/lab",
        environment / "share/jupyter/lab",
        ignore=shutil.ignore_patterns("*.map"),
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTHON", "VIRTUAL_ENV"))}
    clean |= {"HOME": str(tmp_path / "home"), "JUPYTER_PREFER_ENV_PATH": "1"}

    def said(*command: str) -> str:
        called = [str(python), "-m", *command]
        ran = subprocess.run(called, env=clean, capture_output=True, text=True, check=False)
        return re.sub(r"\x1b\[\d+m", "", ran.stdout + ran.stderr)

    assert "sealbook v0.1.0 enabled OK (python, sealbook)" in said("jupyterlab.labextensions", "list")
    servers = said("jupyter_server.extension.serverextension", "list")
    assert re.search(r"sealbook\.jupyter\.server\s+enabled", servers)
    assert re.search(r"sealbook\.jupyter\.server\s+\S*\s*OK", servers)


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_without_the_built_extension_there_is_no_package(target: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(
        EXTENSION, copy / "extension", ignore=shutil.ignore_patterns("node_modules", "build", "lib", ".yarn")
    )
    shutil.copytree(ROOT / "kernel", copy / "kernel", ignore=shutil.ignore_patterns("__pycache__", "*.jar"))
    ran = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(copy / "dist")],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "The JupyterLab extension is not built" in ran.stderr
    assert not list(copy.glob("dist/*"))


def test_the_readmes_pictures_are_there_are_small_and_are_described() -> None:
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+\.png)\)", (ROOT / "README.md").read_text())
    shown = {path for _, path in pictures}
    assert shown == {f"extension/screenshots/{path.name}" for path in (EXTENSION / "screenshots").iterdir()}
    assert all((ROOT / path).stat().st_size < 150_000 for path in shown)
    assert all(len(description) > 30 for description, _ in pictures)
