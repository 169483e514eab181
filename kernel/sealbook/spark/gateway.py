"""The driver's JVM and the channel to it: a child of the kernel, reached over mutual TLS and nothing else.

PySpark starts this JVM through two shell scripts and talks to it in clear over TCP, with a token that it
leaves in a file. Here the kernel starts it directly, tells it its secrets in one frame on standard input, and
both ends hold one certificate that was made for this JVM, is in memory only, and is all that either trusts.
The JVM ends when its standard input does, so that it does not outlive the kernel, however that ends.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import secrets
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealbook.broker.tls import load_identity
from sealbook.errors import RefusedError
from sealbook.spark.credentials import Gateway

if TYPE_CHECKING:
    from py4j.clientserver import ClientServer

#: Where both ends listen. In an enclave the host sees this traffic, which is why it is TLS.
_LOOPBACK: Final = "127.0.0.1"

#: Seconds until a started JVM must have said its port.
START_TIMEOUT: Final = 90.0

#: Seconds that a JVM gets to end by itself: Spark removes its directories then.
STOP_TIMEOUT: Final = 15.0

#: Of the JVM's error output, what is kept for the sentence when it ends at once.
_MAX_OUTPUT: Final = 64 * 1024

#: What PySpark imports into its view of the JVM (pyspark.java_gateway.launch_gateway).
_IMPORTS: Final = (
    "org.apache.spark.SparkConf",
    "org.apache.spark.api.java.*",
    "org.apache.spark.api.python.*",
    "org.apache.spark.ml.python.*",
    "org.apache.spark.mllib.api.python.*",
    "org.apache.spark.resource.*",
    "org.apache.spark.sql.Encoders",
    "org.apache.spark.sql.OnSuccessCall",
    "org.apache.spark.sql.functions",
    "org.apache.spark.sql.classic.*",
    "org.apache.spark.sql.api.python.*",
    "org.apache.spark.sql.hive.*",
    "scala.Tuple2",
)


class _HandshakeInItsThread(ssl.SSLContext):
    """A server's context for py4j's callback server, which accepts and wraps in one thread.

    A handshake there would let any process of the machine stop all callbacks, by connecting and being silent.
    Here it happens when the connection's own thread first reads.
    """

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Wrap without shaking hands."""
        return super().wrap_socket(*args, **kwargs | {"do_handshake_on_connect": False})


@dataclass(frozen=True)
class GatewayIdentity:
    """The one identity that both ends of a gateway have and trust.

    Attributes
    ----------
    certificate
        Self-signed, not a CA: nothing chains to it but itself.
    key
        Its private key.
    token
        What py4j itself asks of a connection; PySpark insists that there is one.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    token: str = field(repr=False)

    @classmethod
    def generate(cls) -> GatewayIdentity:
        """Make one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealbook gateway")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # As long as a notebook may stay open: it ends with the two processes that know its key.
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_LOOPBACK))]), critical=False
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key, secrets.token_urlsafe(32))

    def for_frame(self, port_file: Path) -> Gateway:
        """Return the part of the JVM's frame that is about the gateway."""
        return Gateway(
            certificate=self.certificate.public_bytes(Encoding.PEM).decode(),
            private_key=self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            token=self.token,
            port_file=str(port_file),
        )

    def client_context(self) -> ssl.SSLContext:
        """Return what the kernel connects to the JVM with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._arm(context)
        return context

    def server_context(self) -> ssl.SSLContext:
        """Return what the kernel answers the JVM's callbacks with."""
        context = _HandshakeInItsThread(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        # Nothing is resumed: a session ticket would be a second way to be somebody.
        context.num_tickets = 0
        self._arm(context)
        return context

    def _arm(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        certificate = self.certificate.public_bytes(Encoding.PEM).decode()
        context.load_verify_locations(cadata=certificate)
        load_identity(context, certificate, self.key)


class DriverJvm:
    """A driver's JVM that runs, and the gateway to it.

    Parameters
    ----------
    command, environment
        What to run; see :mod:`sealbook.spark.jvm`.
    frame
        Makes the bytes for standard input from the gateway's part.
    timeout
        Seconds until it must be ready.

    Raises
    ------
    RefusedError
        It did not start.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        frame: Callable[[Gateway], bytes],
        *,
        timeout: float = START_TIMEOUT,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sealbook-driver-")
        self._output = _Output()
        self._identity = GatewayIdentity.generate()
        self._lock = threading.Lock()
        self._ended: str | None = None
        port_file = Path(self._directory.name) / "port"
        try:
            # With a process group of its own: an interrupt of the kernel is for the cell, not for this JVM.
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            self._directory.cleanup()
            raise RefusedError(f"Spark's Java process could not be started: {error.strerror}.") from None
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._output.follow(self._process.stdout)
        # A forked child (multiprocessing) that outlived the kernel would hold the JVM's standard input open.
        os.register_at_fork(after_in_child=self._forget)
        try:
            self._process.stdin.write(frame(self._identity.for_frame(port_file)))
            self._process.stdin.flush()
            port = self._wait_for(port_file, timeout)
            self.gateway: ClientServer = _connect(self, port)
        except BrokenPipeError:
            self._process.wait()
            self.stop(timeout=0)
            raise RefusedError(self._failure()) from None
        except BaseException:
            self.stop(timeout=0)
            raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs and may be talked to."""
        return self._ended is None and self._process.poll() is None

    @property
    def identity(self) -> GatewayIdentity:
        """What both ends of the gateway prove."""
        return self._identity

    def require(self, patience: float = 0) -> None:
        """Raise unless the JVM runs.

        Parameters
        ----------
        patience
            Seconds to wait for its end, where its connections ended already: the kernel closes a killed
            process's connections before it reports its end.

        Raises
        ------
        RefusedError
            With the reason for which it was stopped, or that it ended by itself.
        """
        if self._ended is not None:
            raise RefusedError(self._ended)
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        if self._process.poll() is not None:
            raise RefusedError(self.how_it_ended())

    def how_it_ended(self) -> str:
        """Return the sentence of a JVM that has ended by itself."""
        return (
            "Spark's Java process has ended: run the cells that made this again, a new one starts."
            + self._output.last_error()
        )

    def stop(self, reason: str = "", *, timeout: float = STOP_TIMEOUT) -> None:
        """End the JVM and wait until it has; whatever is used of it later raises `reason`."""
        with self._lock:
            self._ended = self._ended or reason or "This Spark session has ended: run its cells again."
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except OSError:  # Gramine signals no groups; there this JVM has no children of its own
                self._process.kill()
            self._process.wait()
        gateway = getattr(self, "gateway", None)
        if gateway is not None:
            _close(gateway)
        self._output.close()
        self._directory.cleanup()

    def _forget(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.close(self._process.stdin.fileno())  # type: ignore[union-attr]

    def _wait_for(self, port_file: Path, timeout: float) -> int:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if port_file.exists():
                text = port_file.read_text()[:16].strip()
                if not text.isdecimal() or not 0 < int(text) < 65536:
                    raise RefusedError("Spark's Java process named no port: install sealbook again.")
                return int(text)
            if self._process.poll() is not None:
                raise RefusedError(self._failure())
            time.sleep(0.02)
        raise RefusedError(
            f"Spark's Java process was not ready within {timeout:.0f} seconds: the machine may be short of "
            "memory or busy; try again."
        )

    def _failure(self) -> str:
        return (
            f"Spark's Java process ended at its start (status {self._process.returncode})."
            f"{self._output.last_error()}"
        )


#: An exception as Java writes it, a virtual machine's own error, and a sentence of our own. Not the frames
#: below an exception, and not what a JVM that was killed in the middle of its work complained of before.
_TELLING: Final = re.compile(
    r"(?:Exception in thread|Caused by: |Error: |Error occurred|sealbook: |java\.|sealbook\.).*"
    r"|.*\brefused\b.*"
)


class _Output:
    """What the JVM prints: nothing of it is shown while all is well, its last line explains an end."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._thread: threading.Thread | None = None
        self._stream: Any = None

    def follow(self, stream: Any) -> None:
        """Read it all, so that the JVM never waits for a reader; for the notebook it is on `sc` only."""
        self._stream = stream
        self._thread = threading.Thread(target=self._read, name="sealbook-driver-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self._stream.fileno(), 8192):
                self._kept += chunk
                del self._kept[:-_MAX_OUTPUT]

    def last_error(self) -> str:
        """Return the first line of the last exception as the end of a sentence, or nothing."""
        if self._thread is not None:
            self._thread.join(1)
        lines = self._kept.decode(errors="replace").splitlines()
        found = [line for line in lines if _TELLING.match(line)]
        last = found[-1].strip()[:400] if found else ""
        return f" It said: {last}" if last else ""

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(2)
        with contextlib.suppress(OSError):
            self._stream.close()


def _connect(jvm: DriverJvm, port: int) -> ClientServer:
    """Return PySpark's gateway to `jvm`: as pyspark.java_gateway makes it, but over TLS both ways."""
    from py4j.clientserver import JavaParameters, PythonParameters
    from py4j.java_gateway import java_import
    from pyspark.java_gateway import ensure_callback_server_started

    from sealbook.spark.py4j_gateway import Gateway

    # At level DEBUG, which a notebook sets with one call for everything, py4j logs what it sends: its token.
    py4j_log = logging.getLogger("py4j")
    if py4j_log.level == logging.NOTSET:
        py4j_log.setLevel(logging.WARNING)
    identity = jvm.identity
    gateway = Gateway(
        jvm,
        JavaParameters(
            port=port,
            address=_LOOPBACK,
            auth_token=identity.token,
            auto_convert=True,
            ssl_context=identity.client_context(),
        ),
        PythonParameters(port=0, address=_LOOPBACK, eager_load=False, ssl_context=identity.server_context()),
    )
    # PySpark's own code looks there for the process.
    gateway.proc = None
    for name in _IMPORTS:
        java_import(gateway.jvm, name)
    ensure_callback_server_started(gateway)
    return gateway


def _close(gateway: ClientServer) -> None:
    with contextlib.suppress(Exception):
        gateway.shutdown_callback_server()
    with contextlib.suppress(Exception):
        gateway.close()
