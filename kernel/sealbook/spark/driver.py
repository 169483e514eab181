"""The Spark of this kernel: where it runs, the one JVM for that, and with which settings.

Nothing is started before code asks for Spark. Then the JVM is started for the present scale, and every way
that PySpark has to a context leads here (:mod:`sealbook.spark.interception`).
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from sealbook import jdk, session
from sealbook.broker.client import BrokerClient, Enrolment
from sealbook.errors import RefusedError
from sealbook.spark import credentials, gramine_jvm, jvm, settings
from sealbook.spark.gateway import START_TIMEOUT, DriverJvm
from sealbook.spark.keysource import KeyCallback
from sealbook.spark.scale import FindCluster, Scale, cluster_named
from sealbook.spark.starter import StarterProcess

if TYPE_CHECKING:
    from py4j.clientserver import ClientServer

    from sealbook.attestation import AttestationResult, Attester
    from sealbook.broker.client import MemberNode
    from sealbook.spark.credentials import Credentials, Gateway
    from sealbook.spark.profiles import Profile

#: Spark's names for this machine. Others name a cluster, which only `%scale` chooses.
_LOCAL_MASTER: Final = re.compile(r"local(\[[^\]]*\])?")

#: What a driver's heap is when the code does not say: local Spark does all its work in it.
_HEAP: Final = "2g"

#: Seconds that a JVM gets in Gramine, which hashes every file that it opens (measured: 60 to 100 on a
#: machine with five times more work than cores).
_START_IN_GRAMINE: Final = 300.0

#: How old a certificate may be with which a JVM starts: `%scale` may have asked for it just before.
_FRESH: Final = timedelta(minutes=5)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

#: Beside what protects: a name, and no progress bar on an output that nobody sees.
_DEFAULTS: Final = {"spark.app.name": "sealbook", "spark.ui.showConsoleProgress": "false"}

_MAIN: Final = "sealbook.spark.DriverMain"


class Driver:
    """The one Spark driver of a kernel.

    Parameters
    ----------
    attester
        Makes this kernel's evidence, for the brokers of a cluster.
    find_cluster
        Asks the user's side; see :data:`~sealbook.spark.scale.FindCluster`.
    """

    def __init__(self, attester: Attester, find_cluster: FindCluster) -> None:
        self._attester = attester
        self._find_cluster = find_cluster
        self._lock = threading.RLock()
        self._scale: Scale | None = None
        self._jvm: DriverJvm | None = None
        self._credentials: Credentials | None = None
        self._enrolled = _LONG_AGO
        self._standing: Enrolment | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._starter: StarterProcess | None = None

    # -- where ------------------------------------------------------------------------------

    @property
    def scale(self) -> Scale:
        """Where code runs; asked of the user's side once."""
        with self._lock:
            if self._scale is None:
                self._scale = Scale(self._find_cluster(""))
            return self._scale

    @property
    def pid(self) -> int | None:
        """The JVM's process, if there is one."""
        return self._jvm.pid if self._jvm is not None and self._jvm.alive else None

    def switch(self, cluster: str | None) -> Scale:
        """Run what comes now on the cluster of this name, or locally for None.

        Raises
        ------
        SealbookError
            The user has no such cluster, its broker does not admit this kernel, or a part of it does not
            answer. Then nothing changes.
        """
        target = Scale(None if cluster is None else cluster_named(self._find_cluster, cluster))
        if target == self._scale:
            return target
        target.require_master()
        admitted = None if target.profile is None else self._admitted(target)
        self._report(target)
        before = self._scale
        where = "" if before is None else f" on {before.name}"
        reason = (
            f"This belongs to the Spark session{where} that ended with `%scale`: run the cells that made it "
            f"again, they will run on {target.name}."
        )
        # Before this lock is taken: PySpark has one of its own, and takes ours within it.
        forget_context(reason)
        with self._lock:
            if target != self._scale:
                self._scale = target
                self._credentials, self._standing = admitted, None
                self._enrolled = datetime.now(UTC)
                self._stop(reason)
            return target

    def _report(self, scale: Scale) -> None:
        """Have the audit log say where code runs from now on; what cannot be recorded does not happen."""
        session.current().report("scaled", {"cluster": "" if scale.profile is None else scale.profile.name})

    def nodes(self) -> tuple[MemberNode, ...]:
        """Return the nodes of the present cluster, as its broker lists them to this driver.

        Raises
        ------
        SealbookError
            The broker does not admit this kernel, or does not answer.
        """
        profile = self.scale.profile
        if profile is None:
            return ()
        client = BrokerClient(profile.broker, profile.ca, timeout=credentials.BROKER_SECONDS)
        with self._lock:
            enrolment = self._enrolment(client, profile)
        return tuple(sorted(client.nodes(enrolment), key=lambda node: (node.role, node.hosts)))

    def _enrolment(self, client: BrokerClient, profile: Profile) -> Enrolment:
        """Return this driver's standing with the cluster's broker, kept up while it is looked at."""
        now = datetime.now(UTC)
        if self._standing is None or now >= self._standing.expires:
            # The JVM renews its certificate for itself, so that this one may have ended.
            if self._credentials is None or now >= self._credentials.expires:
                self._credentials = self._enrol()
            self._standing = _enrolment_of(profile, self._credentials)
        elif now > self._standing.expires - timedelta(minutes=20):
            self._standing = client.renew(self._standing)
        return self._standing

    def _enrol(self) -> Credentials:
        enrolled = self._admitted(self.scale)
        self._enrolled = datetime.now(UTC)
        self._standing = None
        return enrolled

    def _admitted(self, scale: Scale) -> Credentials:
        assert scale.profile is not None  # noqa: S101 - for the type checker
        return credentials.enrol(scale.profile, credentials.DRIVER, self._attester, [scale.driver_host()])

    # -- the JVM ----------------------------------------------------------------------------

    def gateway(self, conf: Any = None) -> ClientServer:
        """Return the gateway to the JVM of the present scale; starts it if there is none.

        Parameters
        ----------
        conf
            A SparkConf of the code that asks, for what must be known before the JVM starts: its memory.
        """
        with self._lock:
            if self._jvm is None or not self._jvm.alive:
                self._stop("")
                wanted = dict(conf.getAll()) if conf is not None else {}
                self._start(wanted)
            assert self._jvm is not None  # noqa: S101 - for the type checker
            return self._jvm.gateway

    def notice_end(self) -> None:
        """Let PySpark forget what belongs to a JVM that has ended by itself."""
        with self._lock:
            ended = self._jvm is not None and not self._jvm.alive
        if ended:
            self.stop(self._jvm.how_it_ended() if self._jvm is not None else "")

    def stop(self, reason: str = "") -> None:
        """End the JVM; the next use starts another."""
        forget_context(reason)
        with self._lock:
            self._stop(reason)

    def _start(self, wanted: Mapping[str, str]) -> None:
        scale = self.scale
        self._report(scale)
        java = jdk.find_java()
        heap = jvm.check_heap(str(wanted.get("spark.driver.memory", _HEAP)))
        protective = self._protective()
        settings.require(protective)
        frame = self._make_frame(scale)
        self._directory = tempfile.TemporaryDirectory(prefix="sealbook-spark-")
        temporary = Path(self._directory.name) / "tmp"
        blocks = Path(self._directory.name) / "blocks"
        temporary.mkdir(mode=0o700)
        blocks.mkdir(mode=0o700)
        command = jvm.command(
            java,
            role=credentials.LOCAL if scale.profile is None else credentials.DRIVER,
            main=_MAIN,
            heap=heap,
            # Also for a SparkConf that is made on the Java side, by whatever library.
            options=[*jvm.definitions(protective), *self._starting(temporary)],
            temporary=temporary,
            native=not gramine_jvm.MARK.exists(),
        )
        try:
            host = self.scale.driver_host()  # in Gramine the machine has no name that means an address
            timeout = _START_IN_GRAMINE if gramine_jvm.MARK.exists() else START_TIMEOUT
            self._jvm = DriverJvm(
                command, jvm.environment(local_dirs=blocks, host=host), frame, timeout=timeout
            )
            if scale.profile is None:
                # On a cluster the driver asks the brokers, as the executors do: both must get the same keys.
                self._callback = KeyCallback(lambda: session.current().keys)
                self._jvm.gateway.jvm.sealbook.keys.Keys.setCallback(self._callback)
        except BaseException:
            self._stop("")
            raise

    def _starting(self, directory: Path) -> list[str]:
        """Return what tells a JVM in Gramine who starts its processes; see :mod:`.starter`."""
        if not gramine_jvm.MARK.exists():
            return []
        self._starter = StarterProcess(directory)
        return [f"-Dsealbook.starter={self._starter.path}"]

    def _make_frame(self, scale: Scale) -> Callable[[Gateway], bytes]:
        if scale.profile is None:
            return credentials.local_frame
        fresh = self._credentials is not None and datetime.now(UTC) - self._enrolled < _FRESH
        if self._credentials is None or not fresh:
            self._credentials = self._enrol()
        # The JVM renews it from here on, and whoever starts the next JVM needs another.
        self._enrolled = _LONG_AGO
        return self._credentials.frame

    def _stop(self, reason: str) -> None:
        forget_context(reason)
        if self._jvm is not None:
            self._jvm.stop(reason)
            self._jvm = None
        if self._starter is not None:
            self._starter.end()
            self._starter = None
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self._directory.cleanup()
            self._directory = None

    # -- the settings ------------------------------------------------------------------------

    def _protective(self) -> dict[str, str]:
        return settings.settings(self.scale.profile) | self._fixed()

    def _fixed(self) -> dict[str, str]:
        host = self.scale.driver_host()
        return {
            "spark.driver.host": host,
            "spark.driver.bindAddress": host,
            "spark.hadoop.sealbook.key": session.current().default_key,
        }

    def configuration(self, user: Mapping[str, str]) -> dict[str, str]:
        """Return the whole configuration of a context from what the code says.

        Raises
        ------
        RefusedError
            The code would take a protection away; the sentence says which and why.
        """
        wrong = settings.overridden(user)
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise RefusedError(f"This Spark session was not made: {wrong[0]}{more}.")
        conf = _DEFAULTS | self._protective() | dict(user) | self._fixed()
        conf["spark.master"] = self._master(user.get("spark.master"))
        settings.require(conf)
        return conf

    def _master(self, asked: str | None) -> str:
        scale = self.scale
        if asked and scale.profile is None and _LOCAL_MASTER.fullmatch(asked):
            return asked
        if asked and not _LOCAL_MASTER.fullmatch(asked) and asked != scale.master:
            warnings.warn(
                f"The code asks for Spark at {asked}; in a sealbook kernel `%scale` says where it runs, and "
                f"that is {scale.name}.",
                stacklevel=2,
            )
        return scale.master


def _enrolment_of(profile: Profile, own: Credentials) -> Enrolment:
    """Return what the broker's client asks with, from what the JVM was told."""
    key = load_der_private_key(own.tls_private_key, None)
    assert isinstance(key, EllipticCurvePrivateKey)  # noqa: S101 - made by the broker's client
    return Enrolment(
        url=profile.broker,
        broker_ca=profile.ca,
        audience="",
        role=own.role,
        cluster=own.cluster,
        hosts=(),
        session=own.session,
        expires=own.expires,
        certificate=own.certificate,
        ca=own.ca,
        cluster_secret=None,
        tls_private_key=key,
        hpke_private_key=X25519PrivateKey.from_private_bytes(own.hpke_private_key),
        report_data=own.report_data,
        # What the verdict was matters to nobody here: the connection needs the certificate and its key.
        result=cast("AttestationResult", None),
    )


class Ended:
    """In place of what a context had in the JVM: whatever is used of it says why it is gone.

    PySpark puts None there, of which a user would read that it has no attribute ``sc``.
    """

    __slots__ = ("_reason",)

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RefusedError(self._reason)


def forget_context(reason: str = "") -> None:
    """End PySpark's context, and let it forget that, the session and the gateway.

    Parameters
    ----------
    reason
        Said by whatever still refers to it.
    """
    context = sys.modules.get("pyspark.core.context")
    if context is None:
        return
    active = context.SparkContext._active_spark_context
    if active is not None:
        # Orderly where the JVM answers: executors are released and directories removed.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            active.stop()
        if reason:
            active._jsc = Ended(reason)
    context.SparkContext._active_spark_context = None
    context.SparkContext._gateway = None
    context.SparkContext._jvm = None
    sql = sys.modules.get("pyspark.sql.session")
    if sql is not None:
        sql.SparkSession._instantiatedSession = None
        sql.SparkSession._activeSession = None
    old = sys.modules.get("pyspark.sql.context")
    if old is not None:
        old.SQLContext._instantiatedContext = None
