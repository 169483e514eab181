"""The unit tests in Java, kernel/java/test, which a runner of a page runs: Spark's jars have no JUnit."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from java_side import JAVA

_CLASSES = sorted(
    path.relative_to(JAVA / "test").with_suffix("").as_posix().replace("/", ".")
    for path in (JAVA / "test").rglob("*Test.java")
)


@pytest.mark.parametrize("name", _CLASSES)
def test_the_java_tests_pass(name: str, build: Any, class_path: str) -> None:
    done = subprocess.run(
        [build.find_tool("java"), "-cp", class_path, "sealbook.Run", name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok " in done.stdout
