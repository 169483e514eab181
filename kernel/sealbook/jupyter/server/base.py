"""What all handlers have in common: who may ask, and how a refusal is said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Final, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from sealbook.errors import InputError, MissingDependencyError, SealbookError

Method = Callable[..., Awaitable[None]]

#: Longest body of a request, in bytes; paths and names are short.
_MAX_BODY: Final = 64 * 1024


class NotFoundError(InputError):
    """There is no such kernel or file."""


class ExistsError(InputError):
    """Something is in the way, and nothing was said about replacing it."""


class SealbookHandler(APIHandler):
    """Base of the handlers; errors for a person become a status and ``{"message": one sentence}``."""

    def fields(self, **kinds: type) -> dict[str, Any]:
        """Return the fields of the request's body.

        Parameters
        ----------
        kinds
            Names and types of what there may be; text is empty and truth is false where it is left out.

        Raises
        ------
        InputError
            The body is anything else.
        """
        if len(self.request.body) > _MAX_BODY:
            raise InputError(f"The request is longer than {_MAX_BODY} bytes.")
        body = self.get_json_body() or {}
        if not isinstance(body, Mapping) or set(body) - set(kinds):
            raise InputError(f"The request has the fields {', '.join(kinds)} and no others.")
        if any(type(value) is not kinds[name] for name, value in body.items()):
            raise InputError(f"A field of the request is of the wrong kind: {', '.join(sorted(body))}.")
        return {name: body.get(name, kind()) for name, kind in kinds.items()}

    def say(self, error: SealbookError, status: int | None = None) -> None:
        """Answer with an error, and the status that goes with its kind."""
        self.set_status(status or _status(error))
        self.finish({"message": error.one_line, "reason": None})


class LookingHandler(SealbookHandler):
    """Base of what pages ask again and again: it does not count as the user's being there."""

    _track_activity = False


def guarded(method: Method) -> Method:
    """Let a handler's method answer whom jupyter_server admits, and say errors in sentences."""

    @wraps(method)
    async def answer(self: SealbookHandler, **places: str) -> None:
        try:
            await method(self, **places)
        except SealbookError as error:
            self.say(error)

    return cast("Method", web.authenticated(authorized(answer)))


def _status(error: SealbookError) -> int:
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, ExistsError):
        return 409
    if isinstance(error, InputError):
        return 400
    return 501 if isinstance(error, MissingDependencyError) else 403
