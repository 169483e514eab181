"""The Gramine that is installed on this machine: which version, where its parts are, how it signs.

Gramine itself is not part of sealbook and comes from its own packages (https://gramine.readthedocs.io).
Nothing here imports its Python modules, which belong to the system's interpreter: its own programs are asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from sealbook.errors import MissingDependencyError, RefusedError

#: The series that images are built for and tested with. The launcher and the lint know its settings.
MINIMUM_VERSION = (1, 9)

#: What a person does who has no Gramine, or an old one.
REMEDY = "install Gramine 1.9 or newer from its own packages, https://gramine.readthedocs.io"

_VERSION = re.compile(r"Gramine (\d+)\.(\d+)[^ ]*")


@dataclass(frozen=True)
class Gramine:
    """An installed Gramine.

    Attributes
    ----------
    version
        As its programs print it, for example ``1.9``.
    runtime
        The directory of the C library that programs inside Gramine are run with.
    libos
        ``libsysdb.so``, the library OS.
    """

    version: str
    runtime: Path
    libos: Path

    @classmethod
    def find(cls) -> Gramine:
        """Ask the programs on PATH.

        Raises
        ------
        MissingDependencyError
            There is none, or an old one; the sentence says where to get it.
        """
        version = check_version("gramine-direct")
        # The variables of its own templates say where it is installed.
        template = 'runtime = "{{ gramine.runtimedir() }}"\nlibos = "{{ gramine.libos }}"'
        rendered = _run(["gramine-manifest", "--no-check", "-c", template])
        try:
            found = tomllib.loads(rendered)
            return cls(version, Path(found["runtime"]), Path(found["libos"]))
        except (tomllib.TOMLDecodeError, KeyError, TypeError):
            raise MissingDependencyError(
                f"gramine-manifest does not say where Gramine is installed; {REMEDY}."
            ) from None


def check_version(program: str) -> str:
    """Return the version of a Gramine program, for example ``1.9``.

    Raises
    ------
    MissingDependencyError
        It is not on PATH or too old.
    """
    if shutil.which(program) is None:
        raise MissingDependencyError(f"There is no {program} on the PATH; {REMEDY}.")
    match = _VERSION.search(_run([program, "--version"]))
    if match is None:
        raise MissingDependencyError(f"{program} does not say which version it is; {REMEDY}.")
    if (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        raise MissingDependencyError(f"{match[0]} is too old for sealbook; {REMEDY}.")
    return f"{match[1]}.{match[2]}"


def sign(image: Path, name: str, key: Path) -> None:
    """Sign ``<name>.manifest`` in `image`, which makes ``<name>.manifest.sgx`` and ``<name>.sig``.

    The date in the signature is fixed, so that signing twice gives the same bytes.

    Raises
    ------
    RefusedError
        gramine-sgx-sign failed, with its last line.
    MissingDependencyError
        It is not installed.
    """
    if shutil.which("gramine-sgx-sign") is None:
        raise MissingDependencyError(f"There is no gramine-sgx-sign on the PATH; {REMEDY}.")
    _run(
        [
            *("gramine-sgx-sign", "--manifest", f"{name}.manifest", "--output", f"{name}.manifest.sgx"),
            # Gramine expects the signature under the program's name.
            *("--sigfile", f"{name}.sig", "--key", str(key.absolute()), "--date", "0000-00-00"),
        ],
        cwd=image,
    )


def _run(command: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RefusedError(f"{command[0]} could not be run ({type(error).__name__}).") from None
    if done.returncode != 0:
        cause = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise RefusedError(f"{command[0]} failed: {cause[:300]}")
    return done.stdout
