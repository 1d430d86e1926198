"""Request bodies: read within a limit, decoded into closed structs, with errors that name the field."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from octavo.errors import RequestError
from octavo.server.generation import ClientGoneError
from octavo.server.replies import BodyTooLargeError

BODY_TIMEOUT_SECONDS = 60.0

_Body = TypeVar("_Body", bound=msgspec.Struct)
_FIELD_PATH = re.compile(r"\$\.(\w+)")
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_MISSING_FIELD = re.compile(r"missing required field `([^`]*)`")


async def read_body(request: Request, body_type: type[_Body], max_bytes: int) -> _Body:
    """The request's JSON body as `body_type`.

    Raises:
        BodyTooLargeError: more than `max_bytes`; the rest is not read.
        RequestError: not JSON, or not of this type; names the field at fault.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise RequestError(f"the content type must be application/json, not {content_type[:80]!r}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError("compressed request bodies are not accepted; send the JSON as it is")
    return decode_body(await _read_bytes(request, max_bytes), body_type)


def decode_body(data: bytes, body_type: type[_Body]) -> _Body:
    """JSON text as `body_type`. Raises RequestError, naming the field at fault."""
    try:
        return msgspec.json.decode(data, type=body_type)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        detail = "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise RequestError(f"the body is not valid JSON: {detail[:200]}") from None


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection before its body was whole") from None
    except TimeoutError:
        raise RequestError(f"the body did not arrive within {BODY_TIMEOUT_SECONDS:g} s") from None
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than this server accepts ({max_bytes} bytes)")


def _explain(message: str) -> RequestError:
    """msgspec's message in the client's terms: its field, not our path."""
    unknown = _UNKNOWN_FIELD.search(message)
    path = _FIELD_PATH.search(message)
    if unknown is not None:
        name = unknown[1][:80]
        where = f" in {path[1]}" if path is not None else ""
        return RequestError(f"unknown field {name!r}{where}", param=path[1] if path else name)
    missing = _MISSING_FIELD.search(message)
    if missing is not None:
        where = f" in {path[1]}" if path is not None else ""
        return RequestError(
            f"the field {missing[1]!r} is missing{where}", param=path[1] if path else missing[1]
        )
    reason, _, where = message.partition(" - at ")
    reason = reason.replace("`", "'")
    if path is None:
        return RequestError(f"the body is wrong: {reason}")
    place = where.strip("`").replace("$.", "").replace("`", "")
    return RequestError(f"{place} is wrong: {reason}", param=path[1])
