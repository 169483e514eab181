"""Every Spark setting that protects something, as data with its reason; and what may not be set at all.

All values are public: nothing here is a secret, and no secret is in any Spark setting. The stores and
passwords of TLS are dummies, which Spark insists on and sealbook's provider does not look at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sealbook.errors import RefusedError

if TYPE_CHECKING:
    from sealbook.spark.profiles import Profile

#: A public PKCS#12 file with one certificate that nobody has the key of.
DUMMY_STORE = Path(__file__).with_name("unused.p12")
#: Its password. Not a secret: there is nothing in the file.
DUMMY_PASSWORD = "unused"  # noqa: S105

#: What the JCA provider of sealbook's jar calls its ``SSLContext``.
PROTOCOL = "AttestedTLS"


@dataclass(frozen=True)
class Setting:
    """A setting that must have this value, and what happens otherwise."""

    key: str
    value: str
    reason: str


def _tls(prefix: str, who: str) -> tuple[Setting, ...]:
    return (
        Setting(f"{prefix}.enabled", "true", f"{who} would travel in clear"),
        Setting(f"{prefix}.protocol", PROTOCOL, f"{who} would be open to peers that did not attest"),
        Setting(
            f"{prefix}.openSslEnabled", "false", "OpenSSL would take the place of the attesting provider"
        ),
        Setting(f"{prefix}.keyStore", str(DUMMY_STORE), "Spark turns TLS off where this file is missing"),
        Setting(f"{prefix}.keyStorePassword", DUMMY_PASSWORD, "the dummy store would not open"),
        Setting(f"{prefix}.keyPassword", DUMMY_PASSWORD, "the dummy store would not open"),
        Setting(
            f"{prefix}.trustStore", str(DUMMY_STORE), "Spark trusts everybody where this file is missing"
        ),
        Setting(f"{prefix}.trustStorePassword", DUMMY_PASSWORD, "the dummy store would not open"),
    )


#: What every driver has, and every other node as far as it concerns it.
PROTECTIVE: tuple[Setting, ...] = (
    *_tls("spark.ssl.rpc", "closures, shuffle blocks, broadcasts and results"),
    *_tls("spark.ssl", "web pages with queries and plans"),
    Setting("spark.ssl.needClientAuth", "true", "web pages would be readable without a node certificate"),
    Setting(
        "spark.ssl.useNodeLocalConf", "true", "a worker would take a driver's TLS settings for its executors"
    ),
    Setting(
        "spark.authenticate",
        "false",
        "a standalone cluster hands its shared secret to executors in an environment variable; attested TLS "
        "authenticates both ends of every connection instead",
    ),
    Setting("spark.network.crypto.enabled", "false", "Spark would encrypt with that secret in place of TLS"),
    Setting(
        "spark.io.encryption.enabled", "true", "shuffle, spill and cache files would lie on disks in clear"
    ),
    Setting("spark.io.encryption.keySizeBits", "256", "those files would have a shorter key"),
    Setting(
        "spark.python.unix.domain.socket.enabled",
        "true",
        "Python workers would get data over loopback TCP, which anybody on the host reads",
    ),
    Setting(
        "spark.python.worker.memory",
        "1048576t",
        "beyond this size PySpark's own sorting and grouping writes data to disk in clear, whatever "
        "spark.io.encryption says; so it is never reached",
    ),
    Setting(
        "spark.python.worker.faulthandler.enabled",
        "false",
        "stack traces of Python workers would lie in files",
    ),
    Setting("spark.sql.execution.pyspark.udf.faulthandler.enabled", "false", "the same for SQL functions"),
    Setting("spark.master.rest.enabled", "false", "the master would take submissions over plain HTTP"),
    Setting("spark.ui.enabled", "false", "the driver would show queries, plans and settings on a web page"),
    Setting(
        "spark.driver.log.persistToDfs.enabled", "false", "the driver's log would be written out in clear"
    ),
    Setting("spark.shuffle.service.enabled", "false", "shuffle files would be served by another process"),
    Setting(
        "spark.sql.streaming.stateStore.providerClass",
        "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
        "RocksDB writes the state of streams to local disks in clear",
    ),
    Setting(
        "spark.sql.catalogImplementation",
        "in-memory",
        "Hive's metastore would lie in a Derby database in clear",
    ),
    Setting("spark.hadoop.fs.sealed.impl", "sealbook.fs.SealedFileSystem", "sealed: paths would not open"),
    Setting(
        "spark.hadoop.parquet.crypto.factory.class",
        "org.apache.parquet.crypto.keytools.PropertiesDrivenCryptoFactory",
        "Parquet files that ask for encryption would be written in clear",
    ),
    Setting(
        "spark.hadoop.parquet.encryption.kms.client.class",
        "sealbook.parquet.SealbookKms",
        "keys of Parquet files would come from somewhere else",
    ),
    Setting(
        "spark.redaction.regex",
        "(?i)secret|password|passphrase|token|access[.]?key|private[.]?key",
        "values of such settings would be shown and logged",
    ),
)

#: Where a stream that names no checkpoint location keeps its state: otherwise in /tmp, in clear.
CHECKPOINTS = "spark.sql.streaming.checkpointLocation"

#: Directories that Spark writes data into: they may only be ``sealed:`` paths where they are set.
SEALED_PATHS: Mapping[str, str] = {
    "spark.sql.warehouse.dir": "tables",
    "spark.eventLog.dir": "queries, plans and parts of data",
    "spark.history.fs.logDirectory": "queries, plans and parts of data",
    "spark.checkpoint.dir": "data sets",
    CHECKPOINTS: "the state of streams",
    "spark.storage.decommission.fallbackStorage.path": "shuffle blocks",
}

_UNMEASURED = (
    "nodes would load code from their disks that nobody verified; install it beside sealbook, where it is "
    "measured"
)
#: Variables of Python workers that choose which code runs, or where it writes.
_ENVIRONMENT = "spark.executorEnv."
_CHOOSES_CODE = re.compile(
    r"(?:LD_|PYTHON(?!HASHSEED$)|PYSPARK|SPARK|JAVA|JDK_|_JAVA|CLASSPATH|HADOOP|OPENSSL|SSL_|SEALBOOK"
    r"|GLIBC_|GCONV_|LOCPATH|BASH_ENV|ENV$|PATH$|HOME$|TMP|TEMP).*",
    re.IGNORECASE,
)

#: What may not be set: it would take the place of something protective. A dot at the end means all below it.
FORBIDDEN: Mapping[str, str] = {
    "spark.ssl.": "TLS is set up by sealbook",
    "spark.authenticate.": "nodes authenticate with attested certificates",
    "spark.network.crypto.": "TLS encrypts all connections",
    "spark.io.encryption.": "sealbook chooses how files of Spark are encrypted",
    "spark.driver.extraJavaOptions": "it could load code into the JVM or open it for a debugger",
    "spark.driver.defaultJavaOptions": "it could load code into the JVM or open it for a debugger",
    "spark.driver.extraClassPath": "it could put other classes in place of the verified ones",
    "spark.driver.extraLibraryPath": "it could put other libraries in place of the verified ones",
    "spark.driver.userClassPathFirst": "other classes could take the place of the verified ones",
    "spark.executor.extraJavaOptions": "it could load code into the JVM or open it for a debugger",
    "spark.executor.defaultJavaOptions": "it could load code into the JVM or open it for a debugger",
    "spark.executor.extraClassPath": "it could put other classes in place of the verified ones",
    "spark.executor.extraLibraryPath": "it could put other libraries in place of the verified ones",
    "spark.executor.userClassPathFirst": "other classes could take the place of the verified ones",
    "spark.driver.defaultExtraClassPath": "it could put other classes in place of the verified ones",
    "spark.executor.defaultExtraClassPath": "it could put other classes in place of the verified ones",
    "spark.jars": _UNMEASURED,
    "spark.jars.": _UNMEASURED,
    "spark.archives": _UNMEASURED,
    "spark.submit.pyFiles": _UNMEASURED,
    "spark.files": "each node would write the files to its disk in clear",
    "spark.sql.hive.metastore.jars": _UNMEASURED,
    "spark.sql.hive.metastore.jars.": _UNMEASURED,
    "spark.sql.maven.additionalRemoteRepositories": _UNMEASURED,
    "spark.pyspark.python": "Python workers would run in another Python than the verified one",
    "spark.pyspark.driver.python": "Python workers would run in another Python than the verified one",
    "spark.sql.execution.pyspark.python": "Python workers would run in another Python than the verified one",
    "spark.r.": "R is not verified",
    "spark.sparkr.": "R is not verified",
    "spark.resources.discoveryPlugin": "nodes would run programs of the host to look for devices",
    "spark.driver.resource.": "nodes would run programs of the host to look for devices",
    "spark.executor.resource.": "nodes would run programs of the host to look for devices",
    "spark.plugins": "a plugin can open ports to peers that did not attest, as Spark Connect's server does",
    "spark.plugins.": "a plugin can open ports to peers that did not attest, as Spark Connect's server does",
    "spark.remote": "Spark Connect has no TLS",
    "spark.connect.": "Spark Connect has no TLS",
    "spark.metrics.conf": "metrics would be written to files or sent to other machines in clear",
    "spark.metrics.conf.": "metrics would be written to files or sent to other machines in clear",
    "spark.driver.log.localDir": "the driver's log would lie on the disk in clear",
    "spark.driver.log.dfsDir": "the driver's log would be written out in clear",
    "spark.python.profile.dump": "profiles of Python workers would lie on the disk in clear",
    "spark.python.unix.domain.socket.dir": "sockets must lie in each node's own directory",
    "spark.python.daemon.module": "Python workers would run another program",
    "spark.python.worker.module": "Python workers would run another program",
    "spark.ui.store.path": "queries and plans would lie on the disk in clear",
    "spark.deploy.recoveryMode": "the master would write what it knows to a disk in clear",
    "spark.hadoop.fs.sealed.": "sealed: paths are opened by sealbook",
    "spark.hadoop.fs.AbstractFileSystem.sealed.": "sealed: paths are opened by sealbook",
}

_VALUES = {setting.key: setting for setting in PROTECTIVE}

#: What a node that is no driver has besides: of the master and workers themselves.
_DAEMON = {
    "spark.worker.cleanup.enabled": "true",  # directories of jobs that ended
    "spark.worker.cleanup.interval": "300",
    "spark.worker.cleanup.appDataTtl": "300",
    "spark.deploy.recoveryMode": "NONE",
}
#: Prefixes of what an executor needs before it has a connection to ask the driver over
#: (``SparkConf.isExecutorStartupConf``).
_AT_EXECUTOR_START = ("spark.auth", "spark.ssl", "spark.rpc", "spark.network")


def settings(profile: Profile | None) -> dict[str, str]:
    """Return every setting that protects, for a driver.

    Parameters
    ----------
    profile
        The cluster, or None for local Spark, which has the same: also there Spark listens on ports.
    """
    values = {setting.key: setting.value for setting in PROTECTIVE}
    values["spark.sql.warehouse.dir"] = sealed_url(Path.cwd() / "spark-warehouse")
    values[CHECKPOINTS] = sealed_url(Path.cwd() / "spark-checkpoints")
    if profile is not None:
        values |= {
            "spark.master": profile.master,
            "spark.submit.deployMode": "client",
            "spark.executor.memory": profile.memory,
            "spark.executor.cores": str(profile.cores),
        }
    return values


def daemon_settings() -> dict[str, str]:
    """Return what a master or worker starts with."""
    return {setting.key: setting.value for setting in PROTECTIVE} | _DAEMON


def executor_settings() -> dict[str, str]:
    """Return what an executor starts with; the rest it gets from its driver, over attested TLS."""
    return {s.key: s.value for s in PROTECTIVE if s.key.startswith(_AT_EXECUTOR_START)}


def is_protective(key: str, value: str) -> bool:
    """Whether this is a protective setting with its value."""
    return key in _VALUES and _equal(value, _VALUES[key].value)


def sealed_url(path: Path) -> str:
    """Return the ``sealed:`` URL of a local path."""
    return "sealed://" + quote(str(path))


def require(conf: Mapping[str, str]) -> None:
    """Refuse a Spark configuration in which any protection is missing or changed.

    The launcher calls it before it starts anything.

    Parameters
    ----------
    conf
        The whole configuration, protective settings and the user's.

    Raises
    ------
    RefusedError
        One sentence that names the first that is wrong, and how many more there are.
    """
    wrong = _missing(conf) + _changed(conf) + _forbidden(conf) + _in_clear(conf)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise RefusedError(f"Spark does not start: {wrong[0]}{more}.")


def overridden(conf: Mapping[str, str]) -> list[str]:
    """Return a sentence for each setting of a user's own that :func:`require` would refuse."""
    return _changed(conf) + _forbidden(conf) + _in_clear(conf)


def _missing(conf: Mapping[str, str]) -> list[str]:
    wrong = [
        f"the setting {setting.key}={setting.value} is missing, without which {setting.reason}"
        for setting in PROTECTIVE
        if setting.key not in conf
    ]
    # Spark's own defaults for these are local directories.
    return wrong + [
        f"the setting {key} is missing, without which {SEALED_PATHS[key]} would lie in clear"
        for key in ("spark.sql.warehouse.dir", CHECKPOINTS)
        if key not in conf
    ]


def _changed(conf: Mapping[str, str]) -> list[str]:
    return [
        f"{key} is '{_shown(value)}' and must be {_VALUES[key].value}, otherwise {_VALUES[key].reason}"
        for key, value in conf.items()
        if key in _VALUES and not _equal(value, _VALUES[key].value)
    ]


def _forbidden(conf: Mapping[str, str]) -> list[str]:
    wrong = []
    for key in conf:
        if key in _VALUES:
            continue
        if key.startswith(_ENVIRONMENT) and _CHOOSES_CODE.fullmatch(key[len(_ENVIRONMENT) :]):
            wrong.append(f"{key} may not be set: Python workers would run other code, or write elsewhere")
            continue
        for name, reason in FORBIDDEN.items():
            if key == name or (name.endswith(".") and key.startswith(name)):
                wrong.append(f"{key} may not be set: {reason}")
                break
    return wrong


def _in_clear(conf: Mapping[str, str]) -> list[str]:
    wrong = [
        f"{key} is '{_shown(conf[key])}', where {what} would lie in clear: use a sealed:// path"
        for key, what in SEALED_PATHS.items()
        if key in conf and not conf[key].startswith("sealed://")
    ]
    if _equal(conf.get("spark.eventLog.enabled", "false"), "true") and "spark.eventLog.dir" not in conf:
        wrong.append(
            "spark.eventLog.enabled is set without spark.eventLog.dir, and event logs would lie in clear in "
            "/tmp: use a sealed:// path"
        )
    return wrong


def _equal(value: str, wanted: str) -> bool:
    # Spark reads booleans in either case, and Python writes them with a capital.
    return value.lower() == wanted if wanted in ("true", "false") else value == wanted


def _shown(value: str) -> str:
    """Return a user's value, shortened; it may be anything."""
    text = "".join(c if c.isprintable() else "?" for c in value)
    return text if len(text) <= 60 else text[:57] + "..."
