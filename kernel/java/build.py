"""Build ``sealbook/spark/sealbook.jar`` from the sources beside this file; `make` and the tests call it.

Needs the JDK that Spark needs anyway and the jars of the installed pyspark; downloads nothing. The same
sources, JDK and pyspark give the same bytes, in whatever directory: sorted entries, one fixed
time, nothing compressed (compressors differ), no path of the machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
JAR = HERE.parent / "sealbook" / "spark" / "sealbook.jar"
#: The entry that says which sources a jar was made of.
STAMP = "META-INF/sealbook-sources"
_RELEASE = "17"
_WANTED = f"a JDK, {_RELEASE} or newer"
#: Variables with options or classes for javac, which would be in the jar.
_MEDDLING = ("JDK_JAVAC_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
#: The earliest time that a zip file can hold.
_TIME = (1980, 1, 1, 0, 0, 0)
_MANIFEST = "Manifest-Version: 1.0\r\nPremain-Class: sealbook.Agent\r\n\r\n"
#: Hadoop finds the class of a URL's scheme so, without any configuration.
_SERVICE = "META-INF/services/org.apache.hadoop.fs.FileSystem"


class BuildError(Exception):
    """The jar cannot be built; one sentence."""


def build(target: Path = JAR, sources: Path = SOURCES) -> bool:
    """Build `target` if it is not up to date; return whether it was built.

    Raises
    ------
    BuildError
        There is no JDK, no pyspark, or the sources do not compile.
    """
    jars = spark_jars()
    files = sorted(sources.rglob("*.java"), key=lambda path: path.relative_to(sources).as_posix())
    stamp = _stamp(files, sources, jars)
    if _stamp_of(target) == stamp:
        return False
    with tempfile.TemporaryDirectory(prefix="sealbook-java-") as directory:
        classes = Path(directory)
        compile_java(files, classes, class_path=[jars / "*"])
        entries = {
            path.relative_to(classes).as_posix(): path.read_bytes() for path in classes.rglob("*.class")
        }
    entries |= {STAMP: stamp.encode(), _SERVICE: b"sealbook.fs.SealedFileSystem\n"}
    _write(target, entries)
    return True


def spark_jars() -> Path:
    """Return the directory of pyspark's jars, without importing pyspark.

    Raises
    ------
    BuildError
        pyspark is not installed.
    """
    spec = importlib.util.find_spec("pyspark")
    jars = None if spec is None or spec.origin is None else Path(spec.origin).parent / "jars"
    if jars is None or not jars.is_dir():
        raise BuildError("pyspark is not installed here; install sealbook with its `spark` extra.")
    return jars


def find_tool(name: str) -> str:
    """Return the JDK's program `name`, that of JAVA_HOME first.

    Raises
    ------
    BuildError
        There is none.
    """
    home = os.environ.get("JAVA_HOME")
    places = [str(Path(home) / "bin")] if home else []
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise BuildError(f"There is no {name} here; install {_WANTED}, or set JAVA_HOME to one.")
    return found


def compile_java(files: list[Path], classes: Path, *, class_path: list[Path]) -> None:
    """Compile `files` into the directory `classes`.

    Raises
    ------
    BuildError
        There is no compiler, or it refuses them.
    """
    compiler = find_tool("javac")
    command = [
        compiler,
        *("--release", _RELEASE, "-encoding", "UTF-8", "-proc:none", "-nowarn", "-Xlint:-options"),
        "-g:source,lines",
        *("-cp", os.pathsep.join(map(str, class_path)), "-d", str(classes)),
        *map(str, files),
    ]
    environment = {name: value for name, value in os.environ.items() if name not in _MEDDLING}
    # In a locale that is not installed, javac does not find files with other letters than ASCII's.
    environment["LC_ALL"] = "C.UTF-8"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
        )
    except OSError as error:
        raise BuildError(
            f"{compiler} cannot be run ({error.strerror}); install a JDK, 17 or newer."
        ) from None
    if done.returncode and ("--release" in done.stderr or f"release version {_RELEASE}" in done.stderr):
        raise BuildError(
            f"{compiler} is older than Java {_RELEASE}; install {_WANTED}, or set JAVA_HOME to one."
        )
    if done.returncode:
        raise BuildError(f"The Java sources do not compile:\n{done.stderr.strip()}")


def _stamp(files: list[Path], sources: Path, jars: Path) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in files:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()} {len(data)}\n".encode() + data)
    # The names have the versions in them.
    digest.update("\n".join(sorted(path.name for path in jars.glob("*.jar"))).encode())
    return digest.hexdigest()


def _stamp_of(target: Path) -> str | None:
    try:
        with zipfile.ZipFile(target) as jar:
            return jar.read(STAMP).decode()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _write(target: Path, entries: dict[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target and renamed: who builds at the same time, or starts a JVM, sees a whole jar.
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".sealbook.jar-", delete=False) as file:
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as jar:
                for name, data in [("META-INF/MANIFEST.MF", _MANIFEST.encode()), *sorted(entries.items())]:
                    entry = zipfile.ZipInfo(name, _TIME)
                    entry.external_attr = 0o644 << 16
                    entry.create_system = 3
                    jar.writestr(entry, data)
            Path(file.name).chmod(0o644)
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def main() -> int:
    """Build, and say in one sentence what is wrong."""
    try:
        if build():
            print(f"built {JAR.name}")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
