"""What a wheel has in it, because it is all that `pip install sealbook` brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> set[str]:
    # A copy, so that nothing is built into this checkout, and with a jar, whether or not there is a JDK here.
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(
        ROOT / "kernel", copy / "kernel", ignore=shutil.ignore_patterns("__pycache__", "sealbook.jar")
    )
    (copy / "kernel/sealbook/spark/sealbook.jar").write_bytes(b"PK")
    # The same for the JupyterLab extension: tests/packaging/test_extension.py looks at the built one.
    shutil.copytree(
        ROOT / "extension",
        copy / "extension",
        ignore=shutil.ignore_patterns("node_modules", "build", "lib", ".yarn"),
    )
    (copy / "extension/build/labextension").mkdir(parents=True)
    (copy / "extension/build/labextension/package.json").write_text("{}")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(copy / "dist")],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (wheel,) = (copy / "dist").glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_it_has_the_java_part(names):
    assert "sealbook/spark/sealbook.jar" in names
    assert "sealbook/spark/unused.p12" in names


def test_it_has_every_module_and_nothing_outside_the_package(names):
    modules = {str(path.relative_to(ROOT / "kernel")) for path in (ROOT / "kernel/sealbook").rglob("*.py")}
    assert modules <= names
    inside = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert {name.split("/")[0] for name in inside} == {"sealbook"}
    # The README's pictures stay in the repository.
    assert not [name for name in names if name.endswith(".png")]


def test_it_has_the_extension_and_enables_the_servers_part(names):
    data = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert "share/jupyter/labextensions/sealbook/package.json" in data
    assert "share/jupyter/labextensions/sealbook/install.json" in data
    assert "etc/jupyter/jupyter_server_config.d/sealbook.json" in data
