"""The attested channel on which a kernel asks the broker for keys.

Two sockets on the user's side, both CURVE servers with the client key that the kernel's quote
binds, both admitting only the kernel key that the same quote binds:

- *requests*: one frame in, one frame out, handled by the broker
  (:mod:`sealbook.broker.wire` has the messages);
- *pings*: an echo that libzmq answers by itself, so that a busy Jupyter server counts as alive.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from sealbook.errors import RefusedError
from sealbook.jupyter.curve import CurveKeys, admit_only, client_context, require_admission, serve

#: A request or a reply; a released key needs a few hundred bytes.
MAX_FRAME = 64 * 1024

_log = logging.getLogger(__name__)


class BrokerServer:
    """The user's end: bound before the kernel starts, answers only after the kernel was verified.

    Called by the provisioner: the constructor in ``pre_launch``, :meth:`admit` when the evidence
    passed, :meth:`close` in ``cleanup`` and before every restart.
    """

    def __init__(self, keys: CurveKeys, *, ip: str = "127.0.0.1") -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.setsockopt(zmq.LINGER, 0)
        # Without a ZAP handler, which only admit() starts, this refuses everyone.
        require_admission(self._context)
        self._requests = self._bind(keys, ip)
        self._pings = self._bind(keys, ip)
        self._threads: list[threading.Thread] = []
        self._authenticator: ThreadAuthenticator | None = None

    @property
    def address(self) -> str:
        """Both sockets' addresses, as the challenge names them."""
        return " ".join(
            socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in (self._requests, self._pings)
        )

    def admit(self, kernel_key: bytes, handle: Callable[[bytes], bytes]) -> None:
        """Open the channel for one verified kernel.

        Parameters
        ----------
        kernel_key
            The CURVE public key in the kernel's evidence (Z85).
        handle
            Answers one request frame; must not raise.
        """
        self._authenticator = admit_only(self._context, kernel_key)
        for name, target in (
            ("sealbook-broker", lambda: self._answer(handle)),
            ("sealbook-broker-pings", self._echo),
        ):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Close both sockets and end the threads; nothing is answered any more."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        if not self._threads:
            # No thread has taken the sockets over, so they are still ours to close.
            self._requests.close()
            self._pings.close()
        # Wakes the threads with ETERM; each closes its own socket.
        closer = threading.Thread(target=self._context.term, name="sealbook-broker-close", daemon=True)
        closer.start()
        closer.join(timeout=5)

    def _bind(self, keys: CurveKeys, ip: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        serve(socket, keys)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        socket.bind_to_random_port(f"tcp://{ip}")
        return socket

    def _answer(self, handle: Callable[[bytes], bytes]) -> None:
        with contextlib.closing(self._requests) as socket:
            while True:
                try:
                    *envelope, frame = socket.recv_multipart()
                    socket.send_multipart([*envelope, handle(frame)])
                except zmq.ContextTerminated:
                    return
                except zmq.ZMQError:
                    _log.exception("The broker channel lost a request.")

    def _echo(self) -> None:
        with contextlib.closing(self._pings) as socket, contextlib.suppress(zmq.ContextTerminated):
            while True:
                # A device in libzmq: answers without the GIL, as ipykernel's heartbeat does.
                with contextlib.suppress(InterruptedError):
                    zmq.proxy(socket, socket)


class BrokerConnection:
    """The kernel's end: a callable that sends one frame and returns the answer, from any thread.

    Parameters
    ----------
    address
        :attr:`BrokerServer.address`, from the challenge.
    keys
        The kernel's CURVE keys.
    server_key
        The client's CURVE public key, from the challenge: whoever answers has proved to hold it.
    timeout
        Seconds to wait for an answer. Long, because the user may be asked for a passphrase.
    """

    def __init__(self, address: str, keys: CurveKeys, server_key: bytes, *, timeout: float = 120) -> None:
        self._requests_address, _, self._pings_address = address.partition(" ")
        self._context = client_context(zmq.Context, keys, server_key)
        self._context.setsockopt(zmq.LINGER, 0)
        self._timeout = int(timeout * 1000)
        self._lock = threading.Lock()
        self._socket: zmq.Socket[bytes] | None = None
        self._ping_socket: zmq.Socket[bytes] | None = None
        self._process = os.getpid()

    def __call__(self, frame: bytes) -> bytes:
        """Send one request and return its answer.

        Raises
        ------
        RefusedError
            When no answer came in time or this process was forked from the kernel.
        """
        if os.getpid() != self._process:
            raise RefusedError(
                "A process forked from the kernel has no channel to the broker: "
                "open sealed artifacts in the kernel and hand their content over."
            )
        with self._lock:
            socket, self._socket = self._socket or self._connect(self._requests_address), None
            try:
                socket.setsockopt(zmq.RCVTIMEO, self._timeout)
                socket.setsockopt(zmq.SNDTIMEO, self._timeout)
                socket.send(frame)
                answer = socket.recv()
            except zmq.ZMQError:
                socket.close()
                raise RefusedError(
                    f"The key broker did not answer within {self._timeout // 1000} seconds: "
                    "see the log of the Jupyter server, or restart the kernel."
                ) from None
            except BaseException:  # KeyboardInterrupt: the answer to this request must not meet the next
                socket.close()
                raise
            self._socket = socket
            return answer

    def ping(self, timeout: float = 1.0) -> bool:
        """Return whether the client answered within `timeout` seconds. For one thread only."""
        try:
            socket, self._ping_socket = self._ping_socket or self._connect(self._pings_address), None
            socket.setsockopt(zmq.SNDTIMEO, int(timeout * 1000))
            socket.send(b"")
            if socket.poll(int(timeout * 1000)):
                socket.recv()
                self._ping_socket = socket
                return True
            socket.close()
        except zmq.ZMQError:
            pass
        return False

    def close(self) -> None:
        """Close the channel."""
        self._context.destroy(linger=0)

    def _connect(self, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.REQ)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        socket.connect(address)
        return socket
