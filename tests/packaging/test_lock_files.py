"""The three files that say which versions belong together say the same."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("kernel/requirements.txt", "kernel/requirements-spark.txt", "kernel/requirements-voila.txt")
ALLOWED_AT_THE_TOP = {
    ".ci",
    "kernel",
    "extension",
    "notebooks",
    "tests",
    "environment.yml",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "Makefile",
}


def lock_script() -> ModuleType:
    loader = SourceFileLoader("lock", str(ROOT / ".ci/lock"))
    spec = importlib.util.spec_from_loader("lock", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def locked(path: str) -> dict[str, list[str]]:
    versions: dict[str, list[str]] = {}
    for line in lock_script().pins((ROOT / path).read_text()):
        requirement = Requirement(line)
        versions.setdefault(canonicalize_name(requirement.name), []).append(str(requirement.specifier)[2:])
    return versions


def everything_declared() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    declared = [
        Requirement(r) for r in PROJECT["dependencies"] + [r for group in extras.values() for r in group]
    ]
    # An extra that takes in another one names the project itself.
    return [requirement for requirement in declared if requirement.name != PROJECT["name"]]


def test_environment_yml_is_what_make_lock_would_write() -> None:
    lock = lock_script()
    assert (ROOT / "environment.yml").read_text() == lock.environment(
        (ROOT / "kernel/requirements.txt").read_text()
    )


def test_a_changed_pin_in_the_lock_would_be_noticed_in_environment_yml() -> None:
    lock = lock_script()
    changed = (ROOT / "kernel/requirements.txt").read_text().replace("cryptography==", "cryptography==9")
    assert (ROOT / "environment.yml").read_text() != lock.environment(changed)


@pytest.mark.parametrize("requirement", everything_declared(), ids=str)
def test_every_requirement_of_pyproject_is_locked_at_a_version_it_admits(requirement: Requirement) -> None:
    versions = locked(LOCKS[0]) | locked(LOCKS[1])
    found = versions[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(version) for version in found)


def test_the_spark_lock_has_the_same_versions_as_the_everyday_lock() -> None:
    everyday, spark = locked(LOCKS[0]), locked(LOCKS[1])
    assert {name: versions for name, versions in spark.items() if name in everyday} == {
        name: everyday[name] for name in spark if name in everyday
    }


@pytest.mark.parametrize("path", [*LOCKS, "environment.yml"])
def test_no_lock_file_names_an_index(path: str) -> None:
    text = (ROOT / path).read_text()
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|-i ", text)


@pytest.mark.parametrize("path", LOCKS)
def test_every_locked_package_has_a_hash(path: str) -> None:
    text = (ROOT / path).read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_versions_that_an_issue_demands() -> None:
    versions = locked(LOCKS[0])
    assert int(versions["cryptography"][0].split(".")[0]) >= 50
    assert versions["ipykernel"][0] >= "7.3"
    assert all(v.startswith("2.") for v in versions["pandas"])


def test_the_core_install_has_no_data_science_in_it() -> None:
    core = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    assert not core & {
        "numpy",
        "pandas",
        "pyarrow",
        "tensorflow-cpu",
        "scikit-learn",
        "jupyterlab",
        "pyspark",
    }


def test_nothing_else_lies_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {path.split("/")[0] for path in tracked} <= ALLOWED_AT_THE_TOP


def test_no_commit_names_a_path_of_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        [
            "git",
            "grep",
            "-lIE",
            # Kernels in Gramine have a /work and images a root/ of their own.
            r"([^a-z]/root/\.p|/work/(main|shared|\.library|\.mirror)|/opt/pypi|/opt/wheels|pypi\.org|npmjs\.(org|com)|deb\.debian\.org)",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    assert [path for path in listed if path != "tests/packaging/test_lock_files.py"] == []
