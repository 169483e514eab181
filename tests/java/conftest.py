"""The Java side, built once: the jar, the classes that test it, and a JVM that answers questions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark")

from java_side import JAVA, Lab, load_build


@pytest.fixture(scope="session")
def build() -> Any:
    return load_build()


@pytest.fixture(scope="session")
def jar(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jar of the sources as they are; another than the one that kernels and nodes are measured with."""
    target: Path = tmp_path_factory.mktemp("jar") / "sealbook.jar"
    assert build.build(target)
    return target


@pytest.fixture(scope="session")
def class_path(build: Any, jar: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sealbook's jar, Spark's, and the classes of kernel/java/test."""
    classes = tmp_path_factory.mktemp("classes")
    build.compile_java(
        sorted((JAVA / "test").rglob("*.java")), classes, class_path=[jar, build.spark_jars() / "*"]
    )
    return os.pathsep.join([str(classes), str(jar), str(build.spark_jars() / "*")])


@pytest.fixture(scope="session")
def lab(build: Any, class_path: str) -> Iterator[Lab]:
    lab = Lab(build.find_tool("java"), class_path)
    yield lab
    lab.close()
