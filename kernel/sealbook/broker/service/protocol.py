"""Uvicorn's HTTP/1.1 and what it lacks: the peer's certificate, limits of time and of connections."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sealbook.broker.service.limits import asker_at

#: Seconds in which a request must be complete, from the connection or its first byte on.
REQUEST_SECONDS: Final = 10.0

#: Seconds in which TLS must be agreed on.
HANDSHAKE_SECONDS: Final = 10.0

MAX_CONNECTIONS: Final = 512

#: Of those, connections without a node's certificate: what is left is for nodes, however many others come.
MAX_STRANGERS: Final = 384

#: Of those, from one address; a hundred nodes may start on one machine at once.
MAX_STRANGERS_AT: Final = 128

#: Longest request line with headers, in bytes.
MAX_HEADERS: Final = 16 * 1024


class AttestedProtocol(H11Protocol):
    """One connection. ``request.state.peer`` is the client's certificate (DER), or None."""

    _deadline: asyncio.TimerHandle | None = None
    #: Where a connection without a certificate comes from; None for one of a node.
    stranger: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the certificate from TLS, which has verified it."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        peer = tls.getpeercert(binary_form=True) if tls else None
        if peer is None:
            self.stranger = asker_at((transport.get_extra_info("peername") or ("",))[0])
        if not self._fits():
            transport.abort()
            return
        self.app_state = {**self.app_state, "peer": peer}
        self._wait_for_request()

    def _fits(self) -> bool:
        """Tell whether there is room for this connection beside those that are open."""
        others = [each for each in self.connections if isinstance(each, AttestedProtocol)]
        strangers = [each.stranger for each in others if each.stranger is not None]
        # This one is among them, if it is a stranger's.
        return (
            len(self.connections) <= MAX_CONNECTIONS
            and len(strangers) <= MAX_STRANGERS
            and strangers.count(self.stranger or "") <= MAX_STRANGERS_AT
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limit."""
        self._request_is_here()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read on; while a request is incomplete, the clock ticks."""
        super().handle_events()
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait_for_request()
        else:
            self._request_is_here()

    def _wait_for_request(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _request_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class ServiceLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers do not wait for a TLS handshake for a minute, as Python's do."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        """Listen; see the base class."""
        limits = {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": HANDSHAKE_SECONDS}
        server: asyncio.Server = await super().create_server(*args, **(kwargs | limits))
        return server
