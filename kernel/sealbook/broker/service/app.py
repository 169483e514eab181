"""The service as an ASGI application: bytes in and out, and who may send how many of them."""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sealbook.attestation import StaleNonceError
from sealbook.broker import wire
from sealbook.broker.audit import AuditError
from sealbook.broker.service.database import StateError
from sealbook.broker.service.limits import BusyError, RateLimit, asker_at
from sealbook.broker.service.service import BrokerService, Caller
from sealbook.broker.stores import UnlockError
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, SealbookError
from sealbook.sealing import KeyUnavailableError

#: Longest body of a request, and of an answer.
MAX_REQUEST: Final = 64 * 1024
MAX_ANSWER: Final = 256 * 1024

_MAX_SENTENCE: Final = 4096
#: What is not the service's own refusal.
_HTTP_SENTENCES: Final = {
    404: "There is nothing at this path: see the broker's protocol.",
    405: "This path takes another method: see the broker's protocol.",
}

_log = logging.getLogger(__name__)

_Act = Callable[[Request], Awaitable[Mapping[str, Any]]]


class _TooLargeError(InputError):
    """The body of a request is too long to be read."""


class BrokerApp:
    """Turns requests into calls of a :class:`BrokerService`.

    Parameters
    ----------
    service
        Decides.
    strangers
        How often one address may ask without a node's certificate.
    nodes
        How often one session may ask.
    """

    def __init__(
        self, service: BrokerService, *, strangers: RateLimit | None = None, nodes: RateLimit | None = None
    ) -> None:
        self._service = service
        # A hundred nodes may start on one machine at once, each with three requests.
        self._strangers = strangers or RateLimit(rate=20, burst=300)
        self._nodes = nodes or RateLimit(rate=50, burst=500)

    def build(self) -> Starlette:
        """Return the application."""

        def post(path: str, act: _Act) -> Route:
            return Route(path, self._answering(act), methods=["POST"])

        def get(path: str, act: _Act) -> Route:
            return Route(path, self._answering(act), methods=["GET"])

        return Starlette(
            routes=[
                get("/v1/broker", self._broker),
                post("/v1/challenge", self._challenge),
                post("/v1/attest", self._attest),
                post("/v1/renew", self._renew),
                post("/v1/release", self._release),
                get("/v1/keys", self._keys),
                get("/v1/members", self._members),
                get("/v1/nodes", self._found_nodes),
                post("/v1/event", self._event),
            ],
            exception_handlers={HTTPException: _http_refusal},
        )

    def _answering(self, act: _Act) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                body = canonical_json(await act(request))
                if len(body) > MAX_ANSWER:
                    raise InputError("The answer is too long.")
            except ClientDisconnect:
                return Response(status_code=400)
            except SealbookError as error:
                return _refusal(error)
            except Exception:
                # Not the exception's text: it may quote what must not leave.
                _log.exception("The broker failed to answer a request.")
                return _answer(503, "internal", "The broker failed; see its log.")
            return Response(body, media_type="application/json")

        return answer

    async def _broker(self, request: Request) -> Mapping[str, Any]:
        self._stranger(request)
        return {"v": 1, "name": self._service.name}

    async def _challenge(self, request: Request) -> Mapping[str, Any]:
        self._stranger(request)
        await _fields(request)
        nonce = await run_in_threadpool(self._service.challenge)
        return {"nonce": base64.b64encode(nonce).decode()}

    async def _attest(self, request: Request) -> Mapping[str, Any]:
        self._stranger(request)
        names = ("nonce", "role", "cluster", "home", "evidence", "tls_key", "hpke_key", "hosts")
        fields = await _fields(request, *names)

        def attest() -> Mapping[str, Any]:
            return self._service.attest(
                nonce=_bytes(fields, "nonce"),
                role=_text(fields, "role"),
                cluster=_text(fields, "cluster"),
                home=_bytes(fields, "home"),
                evidence=_bytes(fields, "evidence"),
                tls_key=_bytes(fields, "tls_key"),
                hpke_key=_bytes(fields, "hpke_key"),
                hosts=fields["hosts"],
            )

        return await run_in_threadpool(attest)

    async def _renew(self, request: Request) -> Mapping[str, Any]:
        caller = await self._caller(request)
        await _fields(request)
        return await run_in_threadpool(self._service.renew, caller)

    async def _release(self, request: Request) -> Mapping[str, Any]:
        caller = await self._caller(request)
        fields = await _fields(request, "key", "version", "purpose")
        return await run_in_threadpool(
            self._service.release, caller, fields["key"], fields["version"], fields["purpose"]
        )

    async def _keys(self, request: Request) -> Mapping[str, Any]:
        return await run_in_threadpool(self._service.keys, await self._caller(request))

    async def _members(self, request: Request) -> Mapping[str, Any]:
        return await run_in_threadpool(self._service.members, await self._caller(request))

    async def _found_nodes(self, request: Request) -> Mapping[str, Any]:
        return await run_in_threadpool(self._service.nodes, await self._caller(request))

    async def _event(self, request: Request) -> Mapping[str, Any]:
        caller = await self._caller(request)
        fields = await _fields(request, "action", "facts")
        return await run_in_threadpool(self._service.event, caller, fields["action"], fields["facts"])

    def _stranger(self, request: Request) -> None:
        self._strangers.take(asker_at(request.client.host if request.client else ""))

    async def _caller(self, request: Request) -> Caller:
        peer: bytes | None = request.state.peer
        if peer is None:
            self._stranger(request)  # each is in the audit log
        try:
            caller = await run_in_threadpool(self._service.caller, peer)
        except SealbookError:
            if peer is not None:
                self._stranger(request)
            raise
        self._nodes.take(caller.session.id)
        return caller


async def _fields(request: Request, *names: str) -> dict[str, Any]:
    """Return the body's fields; raises InputError unless they are exactly these."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 9 or int(length) > MAX_REQUEST:
        raise _TooLargeError(f"A request has at most {MAX_REQUEST} bytes.")
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_REQUEST:
            raise _TooLargeError(f"A request has at most {MAX_REQUEST} bytes.")
    body = parse_json(data, what="The request", max_bytes=MAX_REQUEST)
    if not isinstance(body, dict) or set(body) != set(names):
        wanted = ", ".join(names) or "none"
        raise InputError(f"The request is a JSON object with exactly these fields: {wanted}.")
    return body


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or len(value) > 1024:
        raise InputError(f"`{name}` is a text of at most 1024 characters.")
    return value


def _bytes(fields: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(fields[name], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError(f"`{name}` is not base64.") from None


def _refusal(error: SealbookError) -> Response:
    if isinstance(error, BusyError):
        return _answer(429, "busy", str(error), {"Retry-After": "1"})
    if isinstance(error, AuditError | StateError | UnlockError):
        # Names files of the owner's, and is none of the node's business.
        _log.error("%s", error)
        return _answer(503, "internal", "The broker cannot decide now; its log says why.")
    code = wire.error_code(error)
    status = {"input": 400, "unavailable": 404}.get(code, 403)
    if isinstance(error, _TooLargeError):
        # What is left of the body is not read: no further request can follow it.
        return _answer(413, code, str(error), {"Connection": "close"})
    if isinstance(error, StaleNonceError):
        status = 409
    if isinstance(error, KeyUnavailableError):
        status = 404
    return _answer(status, code, str(error))


async def _http_refusal(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    return _answer(
        status, "input", _HTTP_SENTENCES.get(status, "The request is not one that this broker knows.")
    )


def _answer(status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps({"code": code, "error": sentence[:_MAX_SENTENCE]}).encode()
    return Response(body, status, headers, "application/json")
