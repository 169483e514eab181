"""CurveZMQ: key pairs that do not print, sockets that admit one peer.

CurveZMQ (ZeroMQ RFC 25 and 26) encrypts and gives forward secrecy; ZAP (RFC 27) decides who
may connect. A CURVE server without a ZAP handler admits every client that knows its *public*
key, and a quote publishes that key: so :func:`admit_only` is not optional here.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any, TypeVar

import zmq
from zmq.auth.thread import ThreadAuthenticator

#: The ZAP domain of all sealbook sockets; its content is of no importance, its presence is:
#: libzmq asks the ZAP handler about CURVE peers only on sockets that have a domain.
ZAP_DOMAIN = b"sealbook"

AnyContext = TypeVar("AnyContext", bound="zmq.Context[Any]")


@dataclass(frozen=True)
class CurveKeys:
    """A CURVE (X25519) key pair, both halves 40 characters of Z85.

    Attributes
    ----------
    public
        May be published; a quote binds it.
    secret
        Never leaves the process and is not in the repr.
    """

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> CurveKeys:
        """Make a fresh pair with libzmq's generator (libsodium's randombytes)."""
        public, secret = zmq.curve_keypair()
        return cls(public, secret)


class _OnlyThese:
    """ZAP credentials provider for :class:`zmq.auth.Authenticator`: a fixed set of public keys."""

    def __init__(self, *keys: bytes) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        # No early exit: which of the keys was compared says nothing by its time.
        return sum(hmac.compare_digest(key, known) for known in self._keys) > 0


def admit_only(context: zmq.Context[Any], *client_keys: bytes, log: Any = None) -> ThreadAuthenticator:
    """Start the ZAP handler of `context`: it admits exactly the given CURVE clients.

    Every socket of this context must also have gone through :func:`require_admission` before
    it is bound. A ZAP handler serves one context; a second context needs its own.

    Returns
    -------
    ThreadAuthenticator
        To be stopped with the context. The caller must keep it: it stops when collected.
    """
    authenticator = ThreadAuthenticator(context, log=log)
    authenticator.start()
    authenticator.configure_curve_callback(
        domain=ZAP_DOMAIN.decode(), credentials_provider=_OnlyThese(*client_keys)
    )
    return authenticator


def require_admission(socket_or_context: zmq.Socket[Any] | zmq.Context[Any]) -> None:
    """Let `socket` (or all new sockets of a context) refuse peers that ZAP does not admit.

    ``ZAP_ENFORCE_DOMAIN`` closes the window in which no handler is there yet: without it a
    socket whose context has no ZAP handler admits everyone.
    """
    socket_or_context.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket_or_context.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def serve(socket: zmq.Socket[Any], keys: CurveKeys) -> None:
    """Make `socket` a CURVE server with these keys that needs ZAP's admission; call before bind."""
    socket.curve_secretkey = keys.secret
    socket.curve_publickey = keys.public
    socket.curve_server = True
    require_admission(socket)


def client_context(kind: type[AnyContext], keys: CurveKeys, server: bytes) -> AnyContext:
    """Make a context whose every new socket is a CURVE client of one server.

    Parameters
    ----------
    kind
        ``zmq.Context`` or ``zmq.asyncio.Context``.
    keys
        The client's own pair.
    server
        The public key the server must prove to hold.
    """
    context = kind()
    context.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    context.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    context.setsockopt(zmq.CURVE_SERVERKEY, server)
    return context
