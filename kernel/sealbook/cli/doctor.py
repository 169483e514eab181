"""`sealbook doctor`: what this machine can do, and what to do about what it cannot."""

from __future__ import annotations

import functools
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sealbook.cli import console
from sealbook.cli.findings import MISSING, OK, TODO, Finding, Machine
from sealbook.cli.options import Json
from sealbook.errors import SealbookError

if TYPE_CHECKING:
    from sealbook.cli.doctor_gramine import GramineKernel


def doctor(json: Json = False) -> None:
    """Say what this machine can do; exit status 1 if something must be done before kernels start."""
    findings = list(examine())
    fine = all(finding.status != TODO for finding in findings)
    if not console.emit({"ok": fine, "findings": [asdict(finding) for finding in findings]}):
        console.table(
            ["", "", "found", "what to do"],
            [(each.subject, each.status, each.detail, each.remedy) for each in findings],
        )
    if not fine:
        raise typer.Exit(1)


def examine(machine: Machine | None = None) -> Iterator[Finding]:
    """Look at everything; a check that fails in an unforeseen way is itself a finding.

    Parameters
    ----------
    machine
        Default: this one.
    """
    machine = machine or Machine()
    installed = functools.cache(lambda: _gramine_kernels(machine))
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("policy", _installation),
        ("keyring", _keyring),
        ("audit log", _audit),
        ("Gramine", lambda: _gramine(machine, installed())),
        ("SGX", lambda: _hardware(machine, installed())),
        ("collateral", lambda: _collateral(machine, installed())),
        ("Java", lambda: _java(machine)),
    ]
    for subject, check in checks:
        try:
            yield from check()
        except SealbookError as error:
            yield Finding(subject, TODO, str(error), "do what it says, then `sealbook doctor` again")
        except Exception as error:
            yield Finding(subject, TODO, f"could not be examined ({type(error).__name__})", "report this")


def _python() -> Iterator[Finding]:
    # Older ones cannot even import sealbook, and pip does not install it there.
    yield Finding("Python", OK, f"{platform.python_version()}, {sys.executable}")


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what sealbook's own metadata demands."""
    from packaging.requirements import Requirement

    wanted = {
        requirement.name: requirement.specifier
        for requirement in map(Requirement, metadata.requires("sealbook") or ())
        if requirement.marker is None
    }
    for name in ("cryptography", "dcap-qvl", "ipykernel", "jupyter-client", "pyzmq"):
        required = wanted.get(name)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, TODO, "not installed", "`pip install sealbook` brings it")
            continue
        if required is not None and not required.contains(version, prereleases=True):
            yield Finding(name, TODO, version, f"`pip install '{name}{required}'`")
        else:
            yield Finding(name, OK, version)
    for name, gives in (("jupyterlab", "lab"), ("papermill", "lab"), ("pandas", "data")):
        try:
            yield Finding(name, OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, MISSING, "not installed", f"`pip install 'sealbook[{gives}]'`")


def _installation() -> Iterator[Finding]:
    from sealbook.cli import machine
    from sealbook.jupyter.kernelspec import SIMULATED
    from sealbook.simulated_loader import measure_kernel

    path = machine.policy_path()
    fit = machine.check_policy(path, measure_kernel())
    yield Finding("policy", OK if fit.ok else TODO, fit.detail, fit.remedy)
    fit = machine.check_kernelspec(SIMULATED, path)
    yield Finding("kernelspec", OK if fit.ok else TODO, fit.detail, fit.remedy)


def _keyring() -> Iterator[Finding]:
    from sealbook import paths
    from sealbook.broker import open_keyring

    store = open_keyring().store
    path = paths.keyring_file()
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding("keyring", TODO, f"{path} can be read by others", f"chmod 600 {path}")
    elif path.exists() or store.label.startswith("system"):
        yield Finding("keyring", OK, store.label)
    else:
        yield Finding(
            "keyring", MISSING, "no keys yet", "`sealbook keys create NAME --guard POLICY` makes one"
        )


def _audit() -> Iterator[Finding]:
    from sealbook import paths
    from sealbook.broker import AuditLog

    verdict = AuditLog(paths.audit_log()).verify()
    if verdict.ok:
        yield Finding("audit log", OK, f"whole, {verdict.entries} entries")
    else:
        remedy = f"find out who wrote to {paths.audit_log()}, then move it and its .head file away"
        yield Finding("audit log", TODO, str(verdict.problem), remedy)


def _gramine_kernels(machine: Machine) -> list[GramineKernel]:
    from sealbook.cli import doctor_gramine

    return doctor_gramine.kernels(machine)


def _gramine(machine: Machine, installed: list[GramineKernel]) -> Iterator[Finding]:
    from sealbook.cli import doctor_gramine, doctor_hardware

    yield from doctor_gramine.examine(machine, installed)
    yield doctor_hardware.map_count(machine)


def _hardware(machine: Machine, installed: list[GramineKernel]) -> Iterator[Finding]:
    from sealbook.cli import doctor_hardware

    yield from doctor_hardware.examine(machine, needed=any(kernel.sgx for kernel in installed))


def _collateral(machine: Machine, installed: list[GramineKernel]) -> Iterator[Finding]:
    from sealbook.cli import doctor_collateral

    yield from doctor_collateral.examine(machine, needed=any(kernel.sgx for kernel in installed))


def _java(machine: Machine) -> Iterator[Finding]:
    home = os.environ.get("JAVA_HOME")
    program = machine.program(str(Path(home, "bin", "java")) if home else "java")
    if program is None:
        yield Finding(
            "Java", MISSING, "not found", "Spark needs Java 17 or newer: `apt install default-jre-headless`"
        )
        return
    text = machine.first_line([program, "-version"])
    found = re.search(r'"(\d+)', text)
    if found and int(found[1]) < 17:
        yield Finding("Java", MISSING, text, "Spark needs Java 17 or newer")
    else:
        yield Finding("Java", OK, text)
