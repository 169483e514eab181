"""The address at which a kernel registers: bounded, because anybody on the host can connect to it.

Messages are length-prefixed frames on a plain TCP connection and not ZeroMQ messages: libzmq
limits a frame and not a message, so that a stranger could fill the client's memory before it has
said who it is. Every connection gets a challenge of its own, and one that sends nonsense, or evidence
that is refused, loses its connection and nothing else: the start goes on.
"""

from __future__ import annotations

import logging
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.jupyter import handshake

_PREFIX = struct.Struct(">I")

#: Connections at the same time; each may hold one message in memory.
_MAX_CONNECTIONS = 64

#: New connections a second: fewer than the broker's challenges can be used up with.
_ACCEPT_INTERVAL = 0.02

#: Seconds within which a new connection must have said a complete hello.
_HELLO_TIMEOUT = 5.0


def send_message(connection: socket.socket, frame: bytes) -> None:
    """Send one length-prefixed message."""
    connection.sendall(_PREFIX.pack(len(frame)) + frame)


def receive_message(connection: socket.socket) -> bytes:
    """Receive one message, waiting as long as the socket's time-out.

    Raises
    ------
    InputError
        The other end closed the connection, kept silent or announced more than
        :data:`sealbook.jupyter.handshake.MAX_MESSAGE` bytes.
    """
    try:
        (length,) = _PREFIX.unpack(_receive_exactly(connection, _PREFIX.size))
        if length > handshake.MAX_MESSAGE:
            raise InputError("A registration message is longer than what is accepted.")
        return _receive_exactly(connection, length)
    except OSError:
        raise InputError("The provisioner of this kernel did not answer: start the kernel again.") from None


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


@dataclass
class _Visitor:
    """One connection, and what it has said so far."""

    connection: socket.socket
    since: float
    challenge: handshake.Challenge | None = None
    received: bytearray = field(default_factory=bytearray)

    def message(self) -> bytes | None:
        """Take what has arrived; return a message once it is complete.

        Raises
        ------
        InputError
            It is longer than what is accepted, or the connection was closed.
        """
        wanted = _PREFIX.size
        if len(self.received) >= wanted:
            (length,) = _PREFIX.unpack(self.received[:wanted])
            if length > handshake.MAX_MESSAGE:
                raise InputError("it is longer than what is accepted")
            wanted += length
        piece = self.connection.recv(wanted - len(self.received)) if len(self.received) < wanted else b""
        if not piece and len(self.received) < wanted:
            raise InputError("it ended early")
        self.received += piece
        if len(self.received) < wanted or wanted == _PREFIX.size:
            return None
        message = bytes(self.received[_PREFIX.size :])
        self.received.clear()
        return message


class RegistrationDesk:
    """Waits for the kernel that was started, among whoever else connects.

    Parameters
    ----------
    challenge
        Makes the challenge of one connection.
    verify
        Verifies evidence against its own connection's challenge; raises SealbookError to refuse it.
    """

    def __init__(
        self,
        challenge: Callable[[], handshake.Challenge],
        verify: Callable[[handshake.Challenge, handshake.Registration], None],
        *,
        ip: str = "127.0.0.1",
        log: logging.Logger | Any = None,
    ) -> None:
        self._make_challenge = challenge
        self._verify = verify
        self._log = log or logging.getLogger(__name__)
        self._listener = socket.create_server((ip, 0))
        self._listener.setblocking(False)
        self._visitors: dict[socket.socket, _Visitor] = {}
        self._refusal: SealbookError | None = None
        self._last_accept = 0.0

    @property
    def address(self) -> str:
        """Where kernels register, as ``tcp://host:port``."""
        host, port = self._listener.getsockname()
        return f"tcp://{host}:{port}"

    def serve(self, *, seconds: float, alive: Callable[[], bool], stopped: Callable[[], bool]) -> None:
        """Return when a kernel's evidence was verified.

        Parameters
        ----------
        seconds
            The time limit.
        alive
            Whether the process that was started still runs.
        stopped
            Whether nobody waits for the result any more.

        Raises
        ------
        SealbookError
            Why there is no verified kernel: the last refusal if there was one.
        """
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while time.monotonic() < deadline and not stopped():
                ready = selector.select(timeout=0.1)
                for key, _ in ready:
                    found = key.fileobj
                    if found is self._listener:
                        self._accept(selector)
                    elif isinstance(found, socket.socket) and self._attend(self._visitors[found], selector):
                        return
                self._dismiss_silent(selector)
                if not ready and not alive():
                    raise self._refusal or RefusedError(
                        "The kernel ended before it attested itself: its own message is in the log above, "
                        "and `sealbook doctor` says what is missing."
                    )
        raise self._refusal or RefusedError(
            f"The kernel did not attest itself within {seconds:.0f} seconds: "
            "see the log above, or raise AttestedProvisioner.registration_timeout."
        )

    def close(self) -> None:
        """Close the address and every connection."""
        self._listener.close()
        for visitor in self._visitors.values():
            visitor.connection.close()
        self._visitors.clear()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        if now - self._last_accept < _ACCEPT_INTERVAL:
            time.sleep(_ACCEPT_INTERVAL)
        self._last_accept = now
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._visitors) >= _MAX_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._visitors[connection] = _Visitor(connection, since=now)
        selector.register(connection, selectors.EVENT_READ)

    def _attend(self, visitor: _Visitor, selector: selectors.BaseSelector) -> bool:
        """Handle what a connection has sent; True when it was evidence that passed."""
        try:
            message = visitor.message()
            if message is None:
                return False
            if visitor.challenge is None:
                handshake.decode_hello(message)
                visitor.challenge = self._make_challenge()
                send_message(visitor.connection, visitor.challenge.encode())
                return False
            registration = handshake.Registration.decode(message)
        except (InputError, OSError) as error:
            # A kernel that speaks nonsense runs into the time limit; a stranger is none of our business.
            self._log.debug("Closed a connection to the registration address: %s", error)
            self._dismiss(visitor, selector)
            return False
        try:
            self._verify(visitor.challenge, registration)
        except SealbookError as error:
            self._refusal = error
            self._log.warning("Refused a kernel's evidence: %s", error)
            self._say(visitor, False, str(error))
            self._dismiss(visitor, selector)
            return False
        self._say(visitor, True, "verified")
        return True

    def _say(self, visitor: _Visitor, accepted: bool, sentence: str) -> None:
        try:
            send_message(visitor.connection, handshake.verdict(accepted, sentence[:2048]))
        except OSError:
            self._log.debug("A kernel was gone before its verdict.")

    def _dismiss_silent(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for visitor in list(self._visitors.values()):
            if visitor.challenge is None and now - visitor.since > _HELLO_TIMEOUT:
                self._dismiss(visitor, selector)

    def _dismiss(self, visitor: _Visitor, selector: selectors.BaseSelector) -> None:
        selector.unregister(visitor.connection)
        del self._visitors[visitor.connection]
        visitor.connection.close()
