"""Finds the Java that Spark runs on, without starting one where that can be known otherwise."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sealbook.errors import InputError

#: What Spark 4.3 needs at least; the class files of its jars have this version.
OLDEST = 17

_INSTALL = (
    f"install one with `sudo apt install openjdk-{OLDEST}-jre-headless` or "
    f"`conda install -c conda-forge openjdk={OLDEST}`"
)
_VERSION_LINE = re.compile(r'^JAVA_VERSION="?(?P<version>[^"\n]*)', re.MULTILINE)
_PRINTED = re.compile(r'version "(?P<version>[^"]*)"')
_MAX_RELEASE_BYTES = 64 * 1024
_SECONDS = 20


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the program ``java``: of ``JAVA_HOME`` if that is set, else the first on ``PATH``.

    Raises
    ------
    InputError
        There is none, or it is too old. A ``JAVA_HOME`` that cannot be used is an error and not passed over:
        whoever set it means it.
    """
    home = environment.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin/java"
        if not os.access(java, os.X_OK):
            raise InputError(
                f"JAVA_HOME is {home}, where there is no bin/java: correct it, or unset it and {_INSTALL}."
            )
    else:
        found = shutil.which("java", path=environment.get("PATH", os.defpath))
        if found is None:
            raise InputError(f"Spark needs Java {OLDEST} or newer and there is none: {_INSTALL}.")
        java = Path(found)
    # The real place: what /usr/bin/java means may change while a cluster runs.
    java = java.resolve()
    if (version := feature(java)) < OLDEST:
        raise InputError(
            f"Spark needs Java {OLDEST} or newer, and {java} is Java {version}: {_INSTALL}, "
            "and let JAVA_HOME name it."
        )
    return java


@functools.lru_cache(maxsize=8)
def feature(java: Path) -> int:
    """Return the feature version (17, 21 ...) of a ``java``.

    Raises
    ------
    InputError
        It does not say.
    """
    try:
        with (java.parent.parent / "release").open(errors="replace") as file:
            said = _VERSION_LINE.search(file.read(_MAX_RELEASE_BYTES))
    except OSError:
        said = None
    version = _number(said["version"]) if said else None
    if version is None:
        version = _number(_ask(java))
    if version is None:
        raise InputError(f"{java} does not say which Java it is: {_INSTALL}.")
    return version


def _number(text: str) -> int | None:
    # Until Java 8 it was "1.8.0_292".
    match = re.match(r"(?:1\.)?(\d{1,3})", text)
    return int(match[1]) if match else None


def _ask(java: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if "JAVA" not in name}
    try:
        done = subprocess.run(
            [str(java), "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    printed = _PRINTED.search(done.stderr + done.stdout)
    return printed["version"] if printed else ""
