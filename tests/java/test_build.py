"""The jar: the same bytes wherever it is built, and nothing in it but what is meant to be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from java_side import JAVA, ROOT, load_build


def test_another_directory_time_zone_and_environment_give_the_same_bytes(jar: Path, tmp_path: Path) -> None:
    copy = tmp_path / "else where" / "é"
    shutil.copytree(JAVA, copy / "kernel" / "java", ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*.java"):
        os.utime(path, (0, 0))
    meddling = {
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "tr_TR.UTF-8",
        "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Dfile.encoding=ISO-8859-1",
        "JDK_JAVAC_OPTIONS": "-g -parameters",
        "_JAVA_OPTIONS": "-Duser.timezone=Asia/Tokyo",
        "CLASSPATH": "/nowhere",
        "SOURCE_DATE_EPOCH": "1",
    }
    done = subprocess.run(
        [sys.executable, str(copy / "kernel" / "java" / "build.py")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | meddling,
        preexec_fn=lambda: os.umask(0o077),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    built = copy / "kernel" / "sealbook" / "spark" / "sealbook.jar"
    assert built.read_bytes() == jar.read_bytes()
    assert built.stat().st_mode & 0o777 == 0o644


def test_no_path_of_the_machine_and_no_time_is_in_it(jar: Path) -> None:
    with zipfile.ZipFile(jar) as file:
        names = file.namelist()
        assert names == ["META-INF/MANIFEST.MF", *sorted(names[1:])]
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        content = b"".join(file.read(name) for name in names)
        assert b"Premain-Class: sealbook.Agent\r\n" in file.read("META-INF/MANIFEST.MF")
    assert str(ROOT).encode() not in content
    assert not re.search(rb"/(usr|home|root|tmp|work)/", content)
    assert all(re.fullmatch(r"META-INF/.*|sealbook/[A-Za-z0-9/$]+\.class", name) for name in names)


def test_it_is_built_again_only_when_something_changed(tmp_path: Path) -> None:
    build = load_build()
    sources = tmp_path / "src" / "sealbook"
    sources.mkdir(parents=True)
    (sources / "A.java").write_text("package sealbook; class A {}")
    target = tmp_path / "a.jar"
    assert build.build(target, sources.parent)
    assert not build.build(target, sources.parent)
    (sources / "A.java").write_text("package sealbook; class A { int b; }")
    assert build.build(target, sources.parent)
    target.write_bytes(b"not a jar")
    assert build.build(target, sources.parent)


def test_without_a_jdk_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build = load_build()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(build, "build", lambda: build.find_tool("javac"))
    assert build.main() == 2
    assert capsys.readouterr().err == (
        "There is no javac here; install a JDK, 17 or newer, or set JAVA_HOME to one.\n"
    )


def test_without_pyspark_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = load_build()
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    assert build.main() == 2
    assert capsys.readouterr().err == (
        "pyspark is not installed here; install sealbook with its `spark` extra.\n"
    )


def test_what_does_not_compile_leaves_the_old_jar(tmp_path: Path) -> None:
    build = load_build()
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "A.java").write_text("class A {}")
    target = tmp_path / "a.jar"
    build.build(target, sources)
    before: Any = target.read_bytes()
    (sources / "A.java").write_text("class A {")
    with pytest.raises(build.BuildError, match="do not compile"):
        build.build(target, sources)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "says", ["javac: invalid flag: --release", "error: release version 17 not supported"]
)
def test_a_jdk_that_is_too_old_is_one_sentence(
    says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build = load_build()
    javac = tmp_path / "jdk" / "bin" / "javac"
    javac.parent.mkdir(parents=True)
    javac.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 2\n")
    javac.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setattr(build, "build", lambda: build.compile_java([], tmp_path, class_path=[]))
    assert build.main() == 2
    sentence = capsys.readouterr().err
    assert sentence.endswith("is older than Java 17; install a JDK, 17 or newer, or set JAVA_HOME to one.\n")
    assert sentence.count("\n") == 1


def test_a_javac_that_does_not_run_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build = load_build()
    javac = tmp_path / "jdk" / "bin" / "javac"
    javac.parent.mkdir(parents=True)
    javac.write_bytes(b"\x7fELF of another processor")
    javac.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setattr(build, "build", lambda: build.compile_java([], tmp_path, class_path=[]))
    assert build.main() == 2
    assert capsys.readouterr().err.endswith(
        "cannot be run (Exec format error); install a JDK, 17 or newer.\n"
    )
