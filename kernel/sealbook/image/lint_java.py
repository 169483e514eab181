"""Rules for images in which a JVM runs: a whole Java that is measured, and what Gramine must give a JVM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sealbook.image.mounts import Files, is_plain
from sealbook.image.objection import NOT_WRITTEN, Objection, shown
from sealbook.image.roles import NODE_MODULE

#: What there is of every Java, below its home; all of it runs.
_PARTS = ("bin/java", "lib/modules", "lib/server/libjvm.so", "conf/security/java.security")
#: At the end of the path of sealbook's own jar: without it a JVM would run without attested TLS.
_OWN_JAR = "/sealbook/spark/sealbook.jar"
_FEWEST_THREADS = 128
_SETTING = "loader.env.JAVA_HOME"


def is_node(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest is that of a node of a cluster, by what it runs."""
    loader = manifest.get("loader")
    argv = loader.get("argv") if isinstance(loader, Mapping) else None
    return isinstance(argv, list) and argv[3:] == ["-m", NODE_MODULE]


def java_home(manifest: Mapping[str, Any]) -> Any:
    """Return what the environment says where Java is; None if it does not."""
    loader = manifest.get("loader")
    environment = loader.get("env") if isinstance(loader, Mapping) else None
    value = environment.get("JAVA_HOME") if isinstance(environment, Mapping) else None
    return value["value"] if isinstance(value, Mapping) and set(value) == {"value"} else value


def check_java(manifest: Mapping[str, Any], files: Files) -> Iterator[Objection]:
    """Judge what a JVM needs, where one runs."""
    home = java_home(manifest)
    if home is None:
        if is_node(manifest):
            reason = "a node would run whatever Java it finds"
            yield Objection(_SETTING, NOT_WRITTEN, reason, 'write "/java", and measure what is there')
        return
    if not is_plain(home):
        yield Objection(_SETTING, shown(home), "it is not an absolute path without . and ..", 'write "/java"')
    elif files.complete:
        yield from _measured(home, files)
    sgx = manifest.get("sgx")
    sgx = sgx if isinstance(sgx, Mapping) else {}
    if sgx.get("use_exinfo") is not True:
        yield Objection(
            "sgx.use_exinfo",
            shown(sgx.get("use_exinfo")),
            "a JVM finds null pointers and stops its threads by memory faults, and would crash at the first",
            "write true",
        )
    threads = sgx.get("max_threads")
    if isinstance(threads, int) and 4 <= threads < _FEWEST_THREADS:
        yield Objection(
            "sgx.max_threads",
            shown(threads),
            "Spark starts a thread for each connection and task, and a JVM that gets none ends",
            f"write at least {_FEWEST_THREADS}",
        )


def _measured(home: str, files: Files) -> Iterator[Objection]:
    for part in _PARTS:
        path = f"{home}/{part}"
        mount = files.mount_of(path)
        if mount is None or not files.is_code(mount) or mount.on_host(path) not in files.trusted:
            yield Objection(
                _SETTING,
                shown(home),
                f"{part} there is no measured file, so nobody knows which Java runs",
                "name a directory with a whole Java, and add it to sgx.trusted_files",
            )
            return
    if not files.trusted.any_ends(_OWN_JAR):
        yield Objection(
            "sgx.trusted_files",
            f"no {_OWN_JAR.rpartition('/')[2]}",
            "the JVM would have neither attested TLS nor sealed files",
            "measure sealbook's jar with the rest of it",
        )
