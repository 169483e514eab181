"""The Java side, built once: the jar, the classes that test it, and a JVM that answers questions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark")

from java_side import JAVA, Lab, load_build
from local_spark import LocalSpark, local_spark


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


@pytest.fixture(scope="module")
def spark(jar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSpark]:
    """Local Spark in a JVM of its own, for one module: PySpark has one context in a process."""
    with local_spark(jar, tmp_path_factory.mktemp("spark")) as running:
        yield running
