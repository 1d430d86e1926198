"""Errors as HTTP: OpenAI's body and the status for each exception; no fault escapes an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import traceback
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineUnavailableError,
    OctavoError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)
from octavo.server.generation import ClientGoneError

_log = logging.getLogger("octavo.server")

Endpoint = Callable[[Request], Awaitable[Response]]

# What nginx calls "client closed request". Nobody reads it.
CLIENT_GONE_STATUS = 499
STARTING_RETRY_SECONDS = 2
# How much of a refused body is read and thrown away, at most.
LINGER_BYTES = 32 * 2**20
LINGER_SECONDS = 2.0


class BodyTooLargeError(RequestError):
    """The body exceeds the server's limit (HTTP 413)."""


# An exception's status, type and code; special ones before those that they are a kind of.
_WIRE: tuple[tuple[type[OctavoError], tuple[int, str, str | None]], ...] = (
    (BodyTooLargeError, (413, "invalid_request_error", None)),
    (ContextLengthError, (400, "invalid_request_error", "context_length_exceeded")),
    (RequestError, (400, "invalid_request_error", None)),
    (UnknownModelError, (404, "invalid_request_error", "model_not_found")),
    (OverloadedError, (429, "rate_limit_error", "rate_limit_exceeded")),
    (DeadlineExceededError, (504, "timeout_error", "deadline_exceeded")),
    (EngineUnavailableError, (503, "service_unavailable_error", "service_unavailable")),
    (OctavoError, (500, "server_error", "internal_error")),
)


class LingeringResponse(Response):
    """An answer before the body has been read: sent whole, then the rest is read and thrown away for a
    moment. A socket closed with unread bytes in it is reset, and the client may lose the answer with it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _discard_body(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard_body(receive: Receive) -> None:
    num_bytes = 0
    while num_bytes < LINGER_BYTES:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        num_bytes += len(message.get("body", b""))


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def error_body(error: OctavoError) -> dict[str, dict[str, Any]]:
    """OpenAI's error object."""
    _, kind, code = _wire(error)
    param = error.param if isinstance(error, RequestError) else None
    if isinstance(error, UnknownModelError):
        param = "model"
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def error_response(error: OctavoError) -> Response:
    headers = {}
    if isinstance(error, BodyTooLargeError):
        # Else the rest of the body would be read to its end to reach the next request.
        headers = {"Connection": "close", "Content-Type": "application/json"}
        return LingeringResponse(msgspec.json.encode(error_body(error)), _wire(error)[0], headers)
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = f"{max(1, math.ceil(error.retry_after_seconds))}"
    elif isinstance(error, EngineUnavailableError):
        headers["Retry-After"] = f"{STARTING_RETRY_SECONDS}"
    return json_response(error_body(error), _wire(error)[0], headers)


def plain_error(status: int, message: str, *, code: str | None = None) -> Response:
    """An error without an exception of ours: no such route, wrong method, no key."""
    kind = "authentication_error" if status == 401 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json_response(body, status)


async def http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals in OpenAI's shape."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path[:200]
    if error.status_code == 404:
        return plain_error(404, f"there is no route {path!r}", code="not_found")
    if error.status_code == 405:
        response = plain_error(
            405, f"{path!r} does not take {request.method[:20]}", code="method_not_allowed"
        )
        response.headers.update(error.headers or {})
        return response
    return plain_error(error.status_code, error.detail)


def contain_faults(endpoint: Endpoint) -> Endpoint:
    """Wrap an endpoint so that whatever it raises ends this request alone, with an error body."""

    async def contained(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE_STATUS)
        except OctavoError as error:
            return error_response(error)
        except Exception as error:
            return error_response(internal_fault(error))

    return contained


def internal_fault(error: Exception) -> OctavoError:
    """A fault of ours: the log gets its kind and place, the client one line without either's detail."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    text = " ".join(str(error).split())[:300]
    _log.error("internal fault at %s: %s: %r", where, type(error).__name__, text)
    return OctavoError("an internal fault ended this request; the server's log names its place")


def _wire(error: OctavoError) -> tuple[int, str, str | None]:
    """Status, type and code: of the first class in the table that the error is of."""
    return next(wire for error_type, wire in _WIRE if isinstance(error, error_type))
