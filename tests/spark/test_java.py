"""Which Java is taken, and the command lines and environments of JVMs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sealbook import jdk, spark_files
from sealbook.errors import InputError, MissingDependencyError
from sealbook.spark import jvm, settings

SHOW = "-XX:+PrintFlagsFinal"


@pytest.fixture(autouse=True)
def _a_jar(tmp_path, monkeypatch):
    """These tests start no JVM with the agent in it, so any file will do where it was not built."""
    if not spark_files.JAR.exists():
        (tmp_path / "sealbook.jar").touch()
        monkeypatch.setattr(spark_files, "JAR", tmp_path / "sealbook.jar")


def java(directory: Path, version: str | None, printed: str = "") -> Path:
    """A stand-in for a JDK that says its version in its `release` file, or only when asked."""
    program = directory / "bin/java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{printed}' >&2\n")
    program.chmod(0o755)
    if version is not None:
        (directory / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\nOS_NAME="Linux"\n')
    return program


@pytest.fixture
def real() -> Path:
    try:
        return jdk.find_java()
    except InputError:
        pytest.skip("needs Java 17")


def test_java_home_comes_before_the_path(tmp_path):
    named, other = java(tmp_path / "named", "21.0.2"), java(tmp_path / "other", "17.0.1")
    environment = {"JAVA_HOME": str(tmp_path / "named"), "PATH": str(other.parent)}
    assert jdk.find_java(environment) == named
    assert jdk.find_java({"PATH": str(other.parent)}) == other


def test_a_link_on_the_path_is_followed_to_the_java_it_means_now(tmp_path):
    target = java(tmp_path / "jdk", "17.0.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").symlink_to(target)
    assert jdk.find_java({"PATH": str(tmp_path / "bin")}) == target


@pytest.mark.parametrize(
    ("version", "feature"), [("17", 17), ("17.0.15", 17), ("21-ea", 21), ("1.8.0_292", 8), ("25.0.1", 25)]
)
def test_versions_are_read_as_javas_of_all_times_write_them(tmp_path, version, feature):
    assert jdk.feature(java(tmp_path / "release", version)) == feature
    assert jdk.feature(java(tmp_path / "asked", None, f'openjdk version "{version}" 2025-01-01')) == feature


def test_without_java_the_sentence_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match=r"there is none: install one with `sudo apt install .*conda"):
        jdk.find_java({"PATH": str(tmp_path)})


def test_a_java_that_is_too_old_is_refused(tmp_path):
    old = java(tmp_path, "11.0.20")
    with pytest.raises(InputError, match=r"is Java 11: install"):
        jdk.find_java({"PATH": str(old.parent)})


def test_a_java_home_that_cannot_be_used_is_not_passed_over(tmp_path):
    good = java(tmp_path / "good", "17.0.1")
    with pytest.raises(InputError, match="JAVA_HOME is"):
        jdk.find_java({"JAVA_HOME": str(tmp_path / "none"), "PATH": str(good.parent)})


def test_a_java_that_says_nothing_is_refused(tmp_path):
    mute = java(tmp_path, None)
    with pytest.raises(InputError, match="does not say which Java it is"):
        jdk.find_java({"PATH": str(mute.parent)})


def test_every_protection_is_in_force_in_a_real_jvm(real):
    command = jvm.command(real, role="local", main="-version", options=[SHOW])
    command.remove(f"-javaagent:{spark_files.JAR}")
    done = subprocess.run(command, env=jvm.environment(), capture_output=True, text=True, check=True)
    flags = dict(re.findall(r"(\w+)\s+=\s+(\S+)? *\{", done.stdout))
    assert flags["UsePerfData"] == "false"
    assert flags["DisableAttachMechanism"] == "true"
    assert flags["HeapDumpOnOutOfMemoryError"] == "false"
    assert flags["CreateCoredumpOnCrash"] == "false"
    assert flags["ErrorFile"] == "/dev/null"
    assert flags["HeapDumpPath"] == "/dev/null"


def test_an_option_given_cannot_undo_a_protection(real):
    wanted = ["-XX:+UsePerfData", "-XX:-DisableAttachMechanism", "-XX:+HeapDumpOnOutOfMemoryError", SHOW]
    command = jvm.command(real, role="local", main="-version", options=wanted)
    command.remove(f"-javaagent:{spark_files.JAR}")
    done = subprocess.run(command, env=jvm.environment(), capture_output=True, text=True, check=True)
    flags = dict(re.findall(r"(\w+)\s+=\s+(\S+)? *\{", done.stdout))
    assert (flags["UsePerfData"], flags["DisableAttachMechanism"]) == ("false", "true")
    assert flags["HeapDumpOnOutOfMemoryError"] == "false"


def test_every_protection_stands_behind_whatever_else_is_given(tmp_path):
    program = java(tmp_path, "17.0.1")
    given = ["-Djdk.attach.allowAttachSelf=true", "-XX:+UsePerfData"]
    command = jvm.command(program, role="x", main="M", options=given)
    # Written down once more, so that none is left out by mistake.
    assert command[-9:-2] == [
        "-XX:-UsePerfData",
        "-XX:+DisableAttachMechanism",
        "-XX:-HeapDumpOnOutOfMemoryError",
        "-XX:HeapDumpPath=/dev/null",
        "-XX:ErrorFile=/dev/null",
        "-XX:-CreateCoredumpOnCrash",
        "-Djdk.attach.allowAttachSelf=false",
    ]
    assert max(map(command.index, given)) < len(command) - 9


def test_a_java_that_does_not_know_a_protection_does_not_start(real, monkeypatch):
    monkeypatch.setitem(jvm.PROTECTIONS, "-XX:+NoSuchProtection", "")
    command = jvm.command(real, role="local", main="-version")
    done = subprocess.run(command, env=jvm.environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "NoSuchProtection" in done.stdout + done.stderr


def test_the_options_are_those_of_sparks_own_launcher(real):
    program = (
        "public class Options { public static void main(String[] a) { for (String o :"
        " org.apache.spark.launcher.JavaModuleOptions.defaultModuleOptionArray()) System.out.println(o); } }"
    )
    launcher = [str(p) for p in (spark_files.spark_home() / "jars").glob("spark-*.jar")]
    javac = real.with_name("javac")
    if not javac.exists():
        pytest.skip("needs javac")
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "Options.java").write_text(program)
        path = os.pathsep.join([directory, *launcher])
        subprocess.run([javac, "-cp", path, Path(directory, "Options.java")], check=True)
        done = subprocess.run([real, "-cp", path, "Options"], capture_output=True, text=True, check=True)
    theirs = set(done.stdout.split()) - {"-XX:+IgnoreUnrecognizedVMOptions", jvm._UNSAFE_MEMORY[0]}
    # Spark's own comes from one place; the bytes of another Spark may say more or less.
    assert theirs == set(jvm.SPARK_OPTIONS)


def test_the_class_path_is_the_jar_the_settings_and_sparks_jars(tmp_path):
    program = java(tmp_path, "17.0.1")
    command = jvm.command(program, role="spark-worker", main="M", arguments=["a", "b"], heap="2g")
    class_path = command[command.index("-cp") + 1].split(os.pathsep)
    assert class_path == [
        str(spark_files.JAR),
        str(spark_files.CONF_DIR),
        str(spark_files.spark_home() / "jars/*"),
    ]
    assert command[-4:] == [f"-javaagent:{spark_files.JAR}", "M", "a", "b"]
    assert "-Xmx2g" in command
    assert "-Dsealbook.role=spark-worker" in command


def test_newer_javas_are_told_about_unsafe_memory_and_older_ones_are_not(tmp_path):
    new, old = java(tmp_path / "new", "25.0.1"), java(tmp_path / "old", "17.0.1")
    assert jvm._UNSAFE_MEMORY[0] in jvm.command(new, role="local", main="M")
    assert jvm._UNSAFE_MEMORY[0] not in jvm.command(old, role="local", main="M")


def test_without_native_libraries_netty_is_told(tmp_path):
    program = java(tmp_path, "17.0.1")
    assert "-Dio.netty.transport.noNative=true" in jvm.command(program, role="x", main="M", native=False)
    assert "-Dio.netty.transport.noNative=true" not in jvm.command(program, role="x", main="M")


def test_nothing_of_the_hosts_environment_reaches_a_jvm(monkeypatch):
    names = (
        "JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS CLASSPATH SPARK_DIST_CLASSPATH SPARK_JAVA_OPTS "
        "PYTHONPATH PYTHONSTARTUP LD_PRELOAD LD_LIBRARY_PATH PYSPARK_PYTHON SPARK_REMOTE HADOOP_CONF_DIR "
        "AWS_SECRET_ACCESS_KEY"
    )
    for name in names.split(" "):
        monkeypatch.setenv(name, "x")
    environment = jvm.environment()
    assert "x" not in environment.values()
    assert environment["SPARK_CONF_DIR"] == str(spark_files.CONF_DIR)
    assert environment["PYTHONSAFEPATH"] == environment["PYTHONNOUSERSITE"] == "1"
    assert environment["OPENSSL_CONF"] == os.devnull
    # Otherwise workers would write into what is measured.
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_where_spark_writes_is_the_nodes_choice_whatever_a_job_says(tmp_path):
    """SPARK_LOCAL_DIRS comes before spark.local.dir (``Utils.getConfiguredLocalDirs``)."""
    environment = jvm.environment(local_dirs=tmp_path / "l", temporary=tmp_path / "t", host="127.0.0.2")
    assert environment["SPARK_LOCAL_DIRS"] == str(tmp_path / "l")
    assert environment["TMPDIR"] == str(tmp_path / "t")
    assert environment["SPARK_LOCAL_IP"] == "127.0.0.2"


def test_python_workers_import_nothing_from_the_working_directory(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('imported from the working directory')")
    code = ["python3", "-m", "this"]
    (tmp_path / "this.py").write_text("raise SystemExit('imported from the working directory')")
    done = subprocess.run(code, env=jvm.environment(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.pyc"))


def test_settings_become_definitions():
    assert jvm.definitions({"b": "2", "a": "1"}) == ["-Da=1", "-Db=2"]


def test_a_jar_that_was_not_built_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(spark_files, "JAR", tmp_path / "sealbook.jar")
    with pytest.raises(MissingDependencyError, match=r"build\.py"):
        spark_files.jar()


@pytest.mark.parametrize(
    "memory", ["", "1", "g", "-1g", "1.5g", "1gb", "449m", "0g", "1234567g", "١g", "1 g"]
)
def test_what_is_no_amount_of_memory_is_refused(memory):
    with pytest.raises(InputError):
        jvm.check_heap(memory)


def test_amounts_of_memory_are_taken():
    assert [jvm.check_heap(m) for m in ("450m", "2G", "1t")] == ["450m", "2g", "1t"]


def test_the_dummy_store_has_no_key_and_its_password_is_no_secret():
    from cryptography.hazmat.primitives.serialization import pkcs12

    store = pkcs12.load_pkcs12(settings.DUMMY_STORE.read_bytes(), settings.DUMMY_PASSWORD.encode())
    assert store.key is None
    assert [c.certificate.subject.rfc4514_string()[:9] for c in store.additional_certs] == ["CN=unused"]
