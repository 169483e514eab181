"""The Java of an image: a JVM and Spark's jars, all of it measured; no other Java can run there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from sealbook import jdk
from sealbook.errors import InputError
from sealbook.image.roles import JAVA_HOME as PREFIX
from sealbook.image.tree import put, put_stripped

EXECUTABLE = PREFIX / "bin/java"

#: Of a Java's ``lib`` and ``conf``, what no node uses: sources and symbols for compilers, a debugger's, a
#: profiler's and an attaching program's libraries, windows, sound, printers, smart cards, and remote
#: management, which would listen on a port.
_LEFT_OUT = frozenset(
    {"src.zip", "ct.sym", "jrt-fs.jar", "jexec", "jfr", "management", "classlist"}
    | {"libjdwp.so", "libdt_socket.so", "libattach.so", "libsaproc.so", "libmanagement_agent.so"}
    | {"libawt_xawt.so", "libjawt.so", "libsplashscreen.so", "libjsound.so", "libj2pcsc.so", "libsctp.so"}
    | {"libatk-wrapper.so", "libjavajpeg.so", "liblcms.so", "libfontmanager.so", "libmlib_image.so"}
    | {"libj2gss.so", "libj2pkcs11.so", "sound.properties", "jspawnhelper", "classes_nocoops.jsa"}
    # Each machine makes its own list of authorities; sealbook's JVMs trust the pinned ones and no other.
    | {"cacerts", "blocked.certs"}
    | {"psfont.properties.ja", "psfontj2d.properties", "accessibility.properties", "swing.properties"}
)

#: Beginnings of the names of Spark's jars that nodes of a sealbook cluster have no use for: other cluster
#: managers and Spark Connect's server, Hive's tables and their databases, state in RocksDB (which would lie
#: on disks in clear, and is refused) and native TLS (which would take the attesting provider's place).
JARS_LEFT_OUT = (
    *("kubernetes-", "volcano-", "vertx-", "spark-kubernetes", "spark-yarn", "spark-connect_"),
    *(
        "spark-hive",
        "spark-repl",
        "scala-compiler",
        "jline-",
        "derby",
        "datanucleus-",
        "jdo-api",
        "javax.jdo",
    ),
    *("hive-beeline", "hive-cli", "hive-common", "hive-exec", "hive-jdbc", "hive-metastore", "hive-serde"),
    *("hive-service", "hive-shims", "HikariCP", "rocksdbjni", "netty-tcnative-boringssl"),
    *("netty-transport-native-epoll", "netty-transport-native-kqueue"),
)


def install(root: Path) -> list[Path]:
    """Copy this machine's Java into the tree at `root`.

    Returns
    -------
    list of Path
        Where its programs and libraries lie on the host.

    Raises
    ------
    InputError
        There is no Java, or it is too old for Spark.
    """
    java = jdk.find_java()
    home = java.parent.parent
    if not (home / "lib/modules").is_file():
        raise InputError(
            f"{home} is not a whole Java: let JAVA_HOME name the directory that has lib/modules."
        )
    binaries = [java]
    put_stripped(java, root, EXECUTABLE)
    put(home / "release", root, PREFIX / "release")
    for top in ("lib", "conf"):
        # Distributions link settings of a Java into /etc; their content is copied.
        for source in sorted((home / top).rglob("*")):
            name = PurePosixPath(source.relative_to(home))
            if _LEFT_OUT & set(name.parts) or not source.is_file():
                continue
            if source.suffix == ".so":
                put_stripped(source, root, PREFIX / name)
                binaries.append(source)
            else:
                put(source, root, PREFIX / name)
    return binaries


def is_left_out(target: PurePosixPath) -> bool:
    """Tell whether a file of the pip package of Spark does not belong into an image."""
    parts = target.parts
    if parts[:2] == ("pyspark", "jars"):
        return parts[-1].startswith(JARS_LEFT_OUT)
    return parts[:2] in {("pyspark", name) for name in ("bin", "sbin", "examples", "data", "licenses")}
