"""One bounded GET: so many bytes, so many seconds, no redirects, nobody's certificate but the service's.

Made of the standard library, and not of `dcap_qvl.get_collateral` (0.7), which does the same in Rust but
takes nothing but the address and the quote: no certificate authority, no time-out, no bound on what the
service sends, follows redirects, and answers every fault with one kind of error. Nor is there a
dependency that would have to be measured and kept current for four requests a day.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sealbook.attestation.pccs.settings import is_loopback
from sealbook.errors import InputError


class ServiceError(Exception):
    """The service gave no usable answer.

    Attributes
    ----------
    cause
        What follows "the collateral service": "cannot be reached (Connection refused)".
    remedy
        What to do about it, if there is something better than to ask another service.
    status
        The HTTP status, if there was one.
    """

    def __init__(self, cause: str, *, remedy: str = "", status: int | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What the service sent: untrusted."""

    body: bytes
    headers: Mapping[str, str]


class Transport:
    """Asks one service, all requests together within `seconds`.

    Parameters
    ----------
    ca
        Certificates in PEM that the service's own must lead to; None for the system's.

    Raises
    ------
    InputError
        `ca` cannot be read or has no certificate.
    """

    def __init__(self, *, seconds: float, ca: Path | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._context = _context(ca)

    @property
    def seconds_left(self) -> float:
        """How long further requests may take; not more than 0 when the time is over."""
        return self._end - time.monotonic()

    def get(self, url: str, *, max_bytes: int) -> Answer:
        """Fetch one document.

        The work is done in a thread of its own, because neither the look-up of a name nor a peer that
        sends one byte every few seconds is bounded by a socket's time-out.

        Raises
        ------
        ServiceError
            Everything else than the answer 200 with at most `max_bytes`, in time.
        """
        left = self.seconds_left
        if left <= 0:
            raise ServiceError("did not answer in time")
        watch = _Watch()
        outcome: queue.SimpleQueue[Answer | ServiceError] = queue.SimpleQueue()

        def work() -> None:
            try:
                outcome.put(self._get(url, max_bytes, left, watch))
            except ServiceError as error:
                outcome.put(error)
            except Exception as error:
                outcome.put(ServiceError(f"cannot be understood ({type(error).__name__})"))

        threading.Thread(target=work, name="sealbook-pccs", daemon=True).start()
        try:
            answer = outcome.get(timeout=left)
        except queue.Empty:
            raise ServiceError("did not answer in time") from None
        finally:
            watch.end()
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    def _get(self, url: str, max_bytes: int, seconds: float, watch: _Watch) -> Answer:
        try:
            with self._opener(url, watch).open(url, timeout=seconds) as response:
                if response.status != http.client.OK:
                    raise _refused(response.status)
                body = response.read(max_bytes + 1)
                headers = dict(response.headers.items())
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from None
        if len(body) > max_bytes:
            raise ServiceError(f"sends more than the {max_bytes} bytes that are accepted")
        return Answer(body, {name.lower(): value for name, value in headers.items()})

    def _opener(self, url: str, watch: _Watch) -> urllib.request.OpenerDirector:
        # Not build_opener, which would follow redirects and read files: only what is named here.
        opener = urllib.request.OpenerDirector()
        handlers = [
            # A proxy would carry plain http off this machine.
            urllib.request.ProxyHandler({} if is_loopback(urlsplit(url).hostname or "") else None),
            _PlainHandler(watch),
            _TlsHandler(watch, self._context),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ]
        for handler in handlers:
            opener.add_handler(handler)
        opener.addheaders = [("User-Agent", "sealbook"), ("Accept", "*/*")]
        return opener


class _Watch:
    """Cuts the connection of a request that is over, so that its thread ends too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._sockets: list[socket.socket] = []

    def add(self, connected: socket.socket) -> None:
        # A second descriptor of the same connection: TLS takes the first one away from its object.
        twin = connected.dup()
        with self._lock:
            self._sockets.append(twin)
            over = self._over
        if over:
            self.end()

    def end(self) -> None:
        with self._lock:
            self._over = True
            for each in self._sockets:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other end was faster
                finally:
                    each.close()
            self._sockets.clear()


class _Watched(http.client.HTTPConnection):
    """A connection whose socket the watch knows before TLS begins.

    http.client has no hook there, but HTTPSConnection.connect calls the next class's connect first.
    """

    watch: _Watch

    def connect(self) -> None:
        super().connect()
        self.watch.add(self.sock)


class _WatchedTls(http.client.HTTPSConnection, _Watched):
    pass


class _PlainHandler(urllib.request.HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> Any:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made = _Watched(host, **options)
            made.watch = self._watch
            return made

        return self.do_open(connection, req)


class _TlsHandler(urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._watch = watch
        self._trusted = context

    def https_open(self, req: urllib.request.Request) -> Any:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made = _WatchedTls(host, context=self._trusted, **options)
            made.watch = self._watch
            return made

        return self.do_open(connection, req)


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(
            f"The certificate authority of the collateral service, {ca}, cannot be read ({detail}); "
            "name a file with certificates in PEM."
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _refused(status: int) -> ServiceError:
    if 300 <= status < 400:
        return ServiceError(
            f"redirects to another address (status {status}), which is not followed",
            remedy="name the address it redirects to",
            status=status,
        )
    return ServiceError(f"answers with status {status}", status=status)


def _unreachable(error: Exception) -> ServiceError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return ServiceError(
            f"shows a certificate that is not trusted ({reason.verify_message.rstrip('.')})",
            remedy="name the authority that issued it as `ca` under [pccs]",
        )
    if isinstance(reason, TimeoutError):
        return ServiceError("did not answer in time")
    if isinstance(reason, ssl.SSLError):
        return ServiceError(f"cannot be reached over TLS ({reason.reason or 'broken off'})")
    if str(reason).startswith("Tunnel connection failed"):  # http.client's words; the rest is the proxy's
        return ServiceError(
            "cannot be reached through the proxy", remedy="check the environment variable https_proxy"
        )
    if isinstance(reason, OSError) and reason.strerror:
        return ServiceError(f"cannot be reached ({reason.strerror})")
    return ServiceError(f"cannot be reached ({type(reason).__name__})")
