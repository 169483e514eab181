"""`sealbook doctor`: what this machine can do, and what to do about what it cannot."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import typer

from sealbook.cli import console
from sealbook.cli.options import Json
from sealbook.errors import SealbookError

OK, MISSING, TODO = "ok", "missing", "to do"


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes
    ----------
    status
        "ok"; "missing" for what only some uses need; "to do" for what sealbook does not work without.
    """

    subject: str
    status: str
    detail: str
    remedy: str = ""


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


def examine() -> Iterator[Finding]:
    """Look at everything; a check that fails in an unforeseen way is itself a finding."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("policy", _installation),
        ("keyring", _keyring),
        ("audit log", _audit),
        ("SGX", _sgx),
        ("Gramine", _gramine),
        ("Java", _java),
    ]
    for subject, check in checks:
        try:
            yield from check()
        except SealbookError as error:
            yield Finding(subject, TODO, str(error))
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


def _sgx() -> Iterator[Finding]:
    for device in ("/dev/sgx_enclave", "/dev/sgx_provision"):
        if not Path(device).exists():
            remedy = "hardware kernels need SGX enabled in the firmware and Linux 5.11; simulated ones do not"
            yield Finding(device, MISSING, "no such device", remedy)
        elif not os.access(device, os.R_OK | os.W_OK):
            yield Finding(device, MISSING, "no access", "join its group (sgx, sgx_prv)")
        else:
            yield Finding(device, OK, "accessible")
    socket = Path("/var/run/aesmd/aesm.socket")
    if socket.is_socket():
        yield Finding("AESM", OK, str(socket))
    else:
        yield Finding("AESM", MISSING, "no aesmd socket", "hardware quotes need the package sgx-aesm-service")


def _gramine() -> Iterator[Finding]:
    for program in ("gramine-direct", "gramine-sgx"):
        if shutil.which(program) is None:
            yield Finding(
                program, MISSING, "not on PATH", "hardware kernels need Gramine 1.9; simulated ones do not"
            )
        else:
            yield Finding(program, OK, _first_line([program, "--version"]) or str(shutil.which(program)))


def _java() -> Iterator[Finding]:
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else "java"
    if shutil.which(program) is None:
        yield Finding(
            "Java", MISSING, "not found", "Spark needs Java 17 or newer: `apt install default-jre-headless`"
        )
        return
    text = _first_line([program, "-version"])
    found = re.search(r'"(\d+)', text)
    if found and int(found[1]) < 17:
        yield Finding("Java", MISSING, text, "Spark needs Java 17 or newer")
    else:
        yield Finding("Java", OK, text)


def _first_line(command: list[str]) -> str:
    """Return the first line a program prints; Java prints its version to stderr."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0][:100]
