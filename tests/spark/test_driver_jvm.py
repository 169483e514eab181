"""The driver's JVM and the gateway to it: who gets in, what can be seen, how it ends, what is said then."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509

from sealbook import jdk
from sealbook.errors import RefusedError
from sealbook.spark import credentials, jvm, settings
from sealbook.spark.gateway import DriverJvm, GatewayIdentity


def started(**kwargs: Any) -> DriverJvm:
    command = jvm.command(
        jdk.find_java(),
        role=credentials.LOCAL,
        main="sealbook.spark.DriverMain",
        options=jvm.definitions(settings.settings(None)),
    )
    return DriverJvm(command, jvm.environment(), credentials.local_frame, **kwargs)


@pytest.fixture(scope="module")
def driver() -> Iterator[DriverJvm]:
    running = started()
    yield running
    running.stop()


def port_of(driver: DriverJvm) -> int:
    return int(driver.gateway.gateway_parameters.port)


def callback_port_of(driver: DriverJvm) -> int:
    return int(driver.gateway._callback_server.server_socket.getsockname()[1])


def asked(port: int, context: ssl.SSLContext | None, data: bytes) -> bytes:
    """Return what a server answers to `data`; nothing if it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            connection = plain if context is None else context.wrap_socket(plain, server_hostname="127.0.0.1")
            connection.sendall(data)
            return connection.recv(4096)
        except OSError:
            return b""


def call(token: str) -> bytes:
    """Return how py4j proves to know the token."""
    return f"A\n{token}\n".encode()


def strangers(driver: DriverJvm) -> dict[str, ssl.SSLContext | None]:
    """Return how those connect who are not the other end."""
    unproven = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproven.check_hostname, unproven.verify_mode = False, ssl.CERT_NONE
    other = GatewayIdentity.generate().client_context()
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    old = driver.identity.client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    return {"in clear": None, "without a certificate": unproven, "with another": other, "with TLS 1.2": old}


WHO = ("in clear", "without a certificate", "with another", "with TLS 1.2")


# -- who gets in -------------------------------------------------------------------------------


def test_the_kernel_itself_is_answered(driver: DriverJvm) -> None:
    assert asked(port_of(driver), driver.identity.client_context(), call(driver.identity.token)) == b"!yv\n"


@pytest.mark.parametrize("who", WHO)
def test_a_stranger_who_knows_the_token_gets_nothing_from_the_jvm(who: str, driver: DriverJvm) -> None:
    assert b"!y" not in asked(port_of(driver), strangers(driver)[who], call(driver.identity.token))


def test_the_certificate_alone_does_not_do_either(driver: DriverJvm) -> None:
    answer = asked(port_of(driver), driver.identity.client_context(), call("x" * 43))
    assert not answer.startswith(b"!y")


@pytest.mark.parametrize("who", WHO)
def test_a_stranger_gets_nothing_from_the_kernels_callbacks(who: str, driver: DriverJvm) -> None:
    # An unknown command is answered with an error, by whoever answers at all.
    assert asked(callback_port_of(driver), strangers(driver)[who], b"?\nx\n") == b""


def test_the_jvm_is_answered_by_the_callbacks_also_while_strangers_are_silent(driver: DriverJvm) -> None:
    silent = [socket.create_connection(("127.0.0.1", callback_port_of(driver))) for _ in range(8)]
    try:
        assert asked(callback_port_of(driver), driver.identity.client_context(), b"?\nx\n").startswith(b"!")
    finally:
        for each in silent:
            each.close()
    assert asked(callback_port_of(driver), None, b"garbage" * 100) == b""
    assert asked(callback_port_of(driver), driver.identity.client_context(), b"?\nx\n").startswith(b"!")


def test_the_kernel_talks_to_no_other_jvm(driver: DriverJvm) -> None:
    """Somebody who got the port first, with a certificate of their own, does not even learn the token."""
    impostor = GatewayIdentity.generate().server_context()
    impostor.verify_mode = ssl.CERT_NONE
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        accepted, _ = server.accept()
        with accepted, pytest.raises(ssl.SSLError):
            threading.Thread(target=lambda: _shake(impostor, accepted), daemon=True).start()
            driver.identity.client_context().wrap_socket(client, server_hostname="127.0.0.1")


def _shake(context: ssl.SSLContext, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        context.wrap_socket(connection, server_side=True).recv(1)


# -- what can be seen --------------------------------------------------------------------------


def test_no_secret_is_in_an_argument_variable_file_or_name_of_the_jvm(driver: DriverJvm) -> None:
    process = psutil.Process(driver.pid)
    token = driver.identity.token
    seen = " ".join([*process.cmdline(), *map("=".join, process.environ().items())])
    assert token not in seen
    assert "PRIVATE" not in seen
    assert token not in repr(driver.identity)
    assert "EllipticCurvePrivateKey" not in repr(driver.identity)
    directory = Path(driver._directory.name)
    assert [path.name for path in directory.iterdir()] == ["port"]
    assert (directory / "port").read_text() == str(port_of(driver))
    assert directory.stat().st_mode & 0o077 == 0


def test_the_jvm_is_started_by_nothing_but_the_kernel(driver: DriverJvm) -> None:
    process = psutil.Process(driver.pid)
    assert process.parent() == psutil.Process()
    assert Path(process.exe()).name == "java"


def test_an_identity_is_not_a_ca_and_each_is_another() -> None:
    first, second = GatewayIdentity.generate(), GatewayIdentity.generate()
    assert first.token != second.token
    assert first.certificate != second.certificate
    assert not first.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


# -- how it ends -------------------------------------------------------------------------------


def gone(pid: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_the_jvm_ends_with_the_kernel_however_that_ends_also_with_a_forked_child_left(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys, time
        sys.path[:0] = [sys.argv[1]]
        from test_driver_jvm import started
        jvm = started()
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(120)
            os._exit(0)
        print(jvm.pid, child, flush=True)
        time.sleep(120)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    ) as kernel:
        assert kernel.stdout is not None
        java, child = map(int, kernel.stdout.readline().split())
        try:
            assert psutil.pid_exists(java)
            kernel.kill()
            assert gone(java)
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_is_left_of_a_stopped_jvm_says_why() -> None:
    running = started()
    name = running.gateway.jvm.java.lang.System.getProperty
    kept = running.gateway.jvm.java.util.ArrayList()
    directory = Path(running._directory.name)
    running.stop("It was stopped for this reason.")
    for use in (lambda: name("x"), lambda: kept.size(), lambda: running.gateway.jvm.java.util.ArrayList()):
        with pytest.raises(RefusedError, match="for this reason"):
            use()
    assert not psutil.pid_exists(running.pid) or gone(running.pid, 1)
    assert not directory.exists()


def test_a_jvm_that_was_killed_is_named_where_it_is_used() -> None:
    running = started()
    os.kill(running.pid, signal.SIGKILL)
    assert gone(running.pid)
    with pytest.raises(RefusedError, match="Java process has ended"):
        running.gateway.jvm.java.util.ArrayList()
    assert not running.alive
    running.stop()


def test_an_interrupt_of_the_kernels_process_group_is_not_for_the_jvm(driver: DriverJvm) -> None:
    assert os.getpgid(driver.pid) == driver.pid != os.getpgid(0)


# -- what is said when it does not start -------------------------------------------------------


@dataclasses.dataclass
class Program:
    """What is run in place of a JVM."""

    code: str

    def start(self, **kwargs: Any) -> DriverJvm:
        return DriverJvm(
            [sys.executable, "-c", self.code], dict(os.environ), credentials.local_frame, **kwargs
        )


def test_a_jvm_that_ends_at_once_is_explained_by_its_last_word() -> None:
    with pytest.raises(RefusedError, match=r"ended at its start \(status 3\). It said: Error: no such class"):
        Program("import sys; sys.stdin.read(9); print('Error: no such class'); sys.exit(3)").start()


@pytest.mark.parametrize(
    "noise",
    [
        "WARNING: Using incubator modules: jdk.incubator.vector",
        "io.netty.channel.unix.Errors$NativeIoException: recvAddress(..) failed: Connection reset by peer",
        "    at org.apache.spark.util.SparkErrorUtils.tryWithSafeFinally(SparkErrorUtils.scala:83)",
    ],
)
def test_what_a_jvm_said_before_it_was_killed_explains_nothing(noise: str) -> None:
    with pytest.raises(RefusedError) as refused:
        Program(f"import sys; sys.stdin.read(9); print({noise!r}); sys.exit(3)").start()
    assert "It said" not in str(refused.value)


def test_a_jvm_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(RefusedError, match="not ready within 1 seconds"):
        Program(code).start(timeout=1)
    assert gone(int(pid.read_text()), 1)


@pytest.mark.parametrize("said", ["", "99999999", "-1", "port", "0"])
def test_a_port_that_is_none_is_refused(said: str) -> None:
    code = (
        "import json, sys, time; n = int.from_bytes(sys.stdin.buffer.read(4), 'big');"
        "frame = json.loads(sys.stdin.buffer.read(n));"
        f"open(frame['gateway']['port_file'], 'w').write({said!r}); time.sleep(30)"
    )
    with pytest.raises(RefusedError, match="named no port"):
        Program(code).start()


def test_a_program_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(RefusedError, match="could not be started"):
        DriverJvm(["/nowhere/java"], {}, credentials.local_frame)


def test_nobody_who_reads_the_log_sees_the_token(driver: DriverJvm, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        # A new thread, because that authenticates a new connection.
        thread = threading.Thread(target=lambda: driver.gateway.jvm.java.lang.System.currentTimeMillis())
        thread.start()
        thread.join()
    assert driver.identity.token not in caplog.text


def test_py4j_prints_no_traceback_for_a_connection_that_broke_off(caplog: pytest.LogCaptureFixture) -> None:
    """As after an interrupt: the connection's socket is closed already when py4j says goodbye over it."""
    from py4j.clientserver import ClientServerConnection

    import sealbook.spark.py4j_gateway  # noqa: F401

    connection = object.__new__(ClientServerConnection)
    connection.is_connected, connection.stream, connection.socket = True, None, None
    connection.shutdown_socket(1, 2)
    logging.getLogger("py4j.clientserver").error("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
