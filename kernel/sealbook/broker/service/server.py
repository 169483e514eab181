"""Runs the service: a socket, TLS and uvicorn, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import uvicorn

from sealbook.broker import tls
from sealbook.broker.service.app import BrokerApp
from sealbook.broker.service.limits import RateLimit
from sealbook.broker.service.protocol import MAX_CONNECTIONS, MAX_HEADERS, AttestedProtocol, ServiceLoop
from sealbook.broker.service.service import BrokerService
from sealbook.errors import InputError, SealbookError

#: Port that nobody asked for another one.
DEFAULT_PORT: Final = 8440

#: Seconds for which requests under way may go on when the service stops.
_GRACE_SECONDS: Final = 5
_KEEP_ALIVE_SECONDS: Final = 8
#: Seconds after which the service's own certificate is made anew, long before it ends.
_RENEWAL_SECONDS: Final = 24 * 3600.0

_log = logging.getLogger(__name__)


class BrokerServer:
    """Listens from the moment it is made; serves while :meth:`run` runs.

    Parameters
    ----------
    service
        Answers.
    host, port
        Where to listen; port 0 takes a free one.
    strangers, nodes
        See :class:`BrokerApp`.
    renewal
        Seconds after which the service's own certificate is made anew.

    Raises
    ------
    InputError
        The port is taken, or the host is not this machine's.
    """

    def __init__(
        self,
        service: BrokerService,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        strangers: RateLimit | None = None,
        nodes: RateLimit | None = None,
        renewal: float = _RENEWAL_SECONDS,
    ) -> None:
        self._service = service
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._host = host
        self._renewal = renewal
        # Handshakes fail on the event loop, which must not wait for a disk.
        self._recorder = ThreadPoolExecutor(1, "sealbook-refusals")
        self._refusals = RateLimit(rate=5, burst=50)
        self._context = tls.server_context(service.node_ca_pem)
        self._context.sslobject_class = self._watched()
        tls.load_identity(self._context, *service.identity())
        app = BrokerApp(service, strangers=strangers, nodes=nodes).build()
        config = uvicorn.Config(
            app,
            http=AttestedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            ssl_context_factory=lambda *_: self._context,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=MAX_HEADERS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._uvicorn = _Uvicorn(config)

    @property
    def url(self) -> str:
        """Where a client on this machine, or one that knows the host by this name, finds the service."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"https://{host}:{self.port}"

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until :meth:`stop`, SIGTERM or SIGINT; `ready` is called when clients are answered."""
        # Uvicorn says at the level of warnings what strangers sent.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        with asyncio.Runner(loop_factory=ServiceLoop) as runner:
            runner.run(self._serve(ready))
        self._recorder.shutdown()

    def stop(self) -> None:
        """Have :meth:`run` return, after the requests under way; from any thread."""
        self._uvicorn.should_exit = True

    async def _serve(self, ready: Callable[[], None] | None) -> None:
        upkeep = asyncio.create_task(self._keep_up(ready))
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await upkeep

    async def _keep_up(self, ready: Callable[[], None] | None) -> None:
        while not self._uvicorn.started:
            await asyncio.sleep(0.01)
        if ready is not None:
            ready()
        while True:
            await asyncio.sleep(self._renewal)
            try:
                tls.load_identity(self._context, *self._service.identity())
            except SealbookError as error:
                _log.error("The broker's certificate could not be renewed: %s", error)

    def _watched(self) -> type[ssl.SSLObject]:
        """Return a class of TLS connections that says which certificates it turned away."""
        refused = self._refused

        class WatchedTls(ssl.SSLObject):
            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except ssl.SSLCertVerificationError as error:
                    refused(error.verify_message)
                    raise

        return WatchedTls

    def _refused(self, cause: str) -> None:
        with contextlib.suppress(SealbookError, RuntimeError):
            self._refusals.take("")
            self._recorder.submit(self._record, f"The client's certificate was refused: {cause}.")

    def _record(self, reason: str) -> None:
        try:
            self._service.refused_connection(reason)
        except SealbookError as error:
            _log.error("A refusal could not be recorded: %s", error)


class _Uvicorn(uvicorn.Server):
    """Stops at SIGTERM and SIGINT without passing the signal on, so that the command ends as it likes."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Before anybody is told the port: another process may have bound it too, and one can listen.
            listener.listen(MAX_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise InputError(
            f"The broker cannot listen at {host}:{port} ({error.strerror or error}): "
            "choose another --port or --host."
        ) from None
    return listener
