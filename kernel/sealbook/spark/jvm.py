"""The exact command line and environment of every JVM that sealbook starts: no shell, no ``spark-class``.

Spark's own scripts read ``spark-env.sh``, configuration directories and a dozen variables, each of which the
host could use to add an option. Here everything is written down; what the environment says is not looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from sealbook import jdk
from sealbook.errors import InputError
from sealbook.spark import gramine_jvm
from sealbook.spark_files import CONF_DIR, jar, spark_home

#: What Spark's launcher opens (``JavaModuleOptions`` of Spark 4.3; a test compares). Spark, Arrow, Kryo and
#: Netty reach into these packages.
_OPENED = (
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "jdk.internal.ref",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
)
#: The rest of what Spark's launcher sets.
SPARK_OPTIONS = (
    "--add-modules=jdk.incubator.vector",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    # Spark sets it because its nodes have no certificates for host names. Here the provider checks each peer.
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "--enable-native-access=ALL-UNNAMED",
)
#: Java refuses this before 24 and warns without it from then on.
_UNSAFE_MEMORY = ("--sun-misc-unsafe-memory-access=allow", 24)

#: Without it, Java reads the first 300 MB of sealed data at some 20 MB/s: its AES-GCM is fast only once the
#: methods that call the processor's instructions are compiled, which counts calls, and a segment of 1 MiB is
#: one call. Compiled after 2 % of the usual number, it is fast after some 16 MB. (Java 17, measured.)
_AES_EARLY = (
    "-XX:CompileCommand=quiet",  # first, or Java prints each of them
    "-XX:CompileCommand=CompileThresholdScaling,com.sun.crypto.provider.*::*,0.02",
)

#: Option -> what would get out of the process without it. No ``-XX:+IgnoreUnrecognizedVMOptions``, which
#: Spark sets: a Java that does not know one of these must not start.
PROTECTIONS = {
    "-XX:-UsePerfData": "a file in /tmp tells everybody on the machine which JVM runs with which arguments",
    "-XX:+DisableAttachMechanism": "any process of the same user can load code into the JVM, or have it dump",
    "-XX:-HeapDumpOnOutOfMemoryError": "all data of the process is written to the disk in clear",
    "-XX:HeapDumpPath=/dev/null": "the same, should anything switch heap dumps on while it runs",
    "-XX:ErrorFile=/dev/null": "registers and stacks, with data in them, are written to hs_err files",
    "-XX:-CreateCoredumpOnCrash": "the whole memory is written to a core file",
    "-Djdk.attach.allowAttachSelf=false": "code in the JVM can attach to it",
}

#: Of the environment's, these and no others.
_KEPT = ("HOME", "TZ")


def command(
    java: Path,
    *,
    role: str,
    main: str,
    arguments: Sequence[str] = (),
    heap: str = "1g",
    options: Iterable[str] = (),
    temporary: Path | None = None,
    native: bool = True,
    cores: int = 2,
) -> list[str]:
    """Return the whole command line of a JVM.

    Parameters
    ----------
    java
        From :func:`sealbook.jdk.find_java`.
    role
        What it is; told to the Java agent, which compares it with the frame's.
    main
        The class to run, and with `arguments` its arguments.
    heap
        Its largest heap, as ``-Xmx`` takes it.
    options
        More options, for example ``-Dspark...`` of :func:`definitions`; behind the fixed ones except for the
        protections, which come last because of two equal options Java takes the last.
    temporary
        Directory for sockets of Python workers and for native libraries, which Netty and the
        compression libraries unpack.
    native
        False in Gramine; see :mod:`.gramine_jvm`.
    cores
        Of the executor; in Gramine a JVM is told how many there are.
    """
    given = [
        *SPARK_OPTIONS,
        *_AES_EARLY,
        *([_UNSAFE_MEMORY[0]] if jdk.feature(java) >= _UNSAFE_MEMORY[1] else []),
        "-Dfile.encoding=UTF-8",
        "-Djava.awt.headless=true",
        f"-Dsealbook.role={role}",
        *([f"-Djava.io.tmpdir={temporary}"] if temporary is not None else []),
        *options,
        *([] if native else gramine_jvm.options(role, heap, cores)),
    ]
    whole = [
        str(java),
        "-cp",
        os.pathsep.join([str(jar()), str(CONF_DIR), str(spark_home() / "jars/*")]),
        f"-Xmx{heap}",
        *given,
        *PROTECTIONS,
        # Started in the JVM before everything else; reads the frame from standard input.
        f"-javaagent:{jar()}",
        main,
        *arguments,
    ]
    if not native:
        gramine_jvm.check(whole[: whole.index(main)])
    return whole


def definitions(settings: dict[str, str]) -> list[str]:
    """Return Spark settings as ``-D`` options: set by whoever starts the JVM, with no file to change."""
    return [f"-D{key}={value}" for key, value in sorted(settings.items())]


def environment(
    *, local_dirs: Path | None = None, temporary: Path | None = None, host: str | None = None
) -> dict[str, str]:
    """Return the environment of a JVM and of the Python workers that it starts.

    Nothing is taken over but :data:`_KEPT`: of what the JVM, OpenSSL, Python and Spark read from the
    environment (``JAVA_TOOL_OPTIONS``, ``JDK_JAVA_OPTIONS``, ``SPARK_DIST_CLASSPATH``, ``PYTHONPATH`` ...)
    each could bring in code or take protection away.

    Parameters
    ----------
    local_dirs
        Where Spark puts shuffle and spill files, which are encrypted.
    temporary
        Where the Python workers put temporary files.
    host
        The address of this node; otherwise Spark looks for one among the network interfaces.
    """
    # First on PATH is this very interpreter: the "python3" that a driver elsewhere names is this node's.
    python = Path(sys.executable).parent
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {
        "PATH": os.pathsep.join([str(python), "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "SPARK_HOME": str(spark_home()),
        "SPARK_CONF_DIR": str(CONF_DIR),
        # Otherwise Spark's launcher, in a worker, looks for directories that only a build of Spark has.
        "SPARK_SCALA_VERSION": "2.13",
        # As `-I -B` does for the agent, for the Python workers: what lies in the working directory, which is
        # the host's, is not imported, and nothing is written into what is measured.
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "OPENSSL_CONF": os.devnull,
        **(gramine_jvm.ENVIRONMENT if gramine_jvm.MARK.exists() else {}),
        **({"SPARK_LOCAL_DIRS": str(local_dirs)} if local_dirs is not None else {}),
        **({"TMPDIR": str(temporary)} if temporary is not None else {}),
        **({"SPARK_LOCAL_IP": host} if host is not None else {}),
    }


def check_heap(memory: str) -> str:
    """Return an amount of memory as Java and Spark both take it.

    Raises
    ------
    InputError
        It is none, or less than Spark runs in.
    """
    unit = _UNITS.get(memory[-1:].lower())
    digits = memory[:-1]
    if unit is None or not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
        raise InputError(f"'{memory}' is not an amount of memory: write it like 1500m or 2g.")
    if int(digits) * unit < _LEAST_MEGABYTES:
        raise InputError(f"{memory} is too little: Spark needs at least {_LEAST_MEGABYTES}m.")
    return memory.lower()


def megabytes(memory: str) -> int:
    """Return how much an amount of memory is that :func:`check_heap` took."""
    return int(memory[:-1]) * _UNITS[memory[-1]]


#: Letters of amounts of memory, in MiB.
_UNITS = {"m": 1, "g": 1024, "t": 1024 * 1024}
#: Spark itself refuses less: 1.5 times the 300 MiB it reserves (``UnifiedMemoryManager``).
_LEAST_MEGABYTES = 450
