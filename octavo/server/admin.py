"""The operators' application, served on a Unix socket alone: the block map, and what the cache holds.

The file's mode is its key: who may open it may do all of this.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import OctavoError, RequestError
from octavo.messages import DropPrefixes, ListPrefixes, MapBlocks, PinPrefix, UnpinPrefix
from octavo.prompts import pinnable_tokens
from octavo.sampling_params import SamplingParams
from octavo.server.bodies import read_body
from octavo.server.generation import Generation
from octavo.server.openai.schema import TokenId
from octavo.server.openai.service import read_cache_salt
from octavo.server.parts import ServerParts, encode_text
from octavo.server.replies import contain_faults, http_error, json_response, plain_error
from octavo.service_params import ServiceParams, check_seconds

DEFAULT_TTL_SECONDS = 3600.0
# Of a cached prefix, as much is shown as text as tells it from others.
SHOWN_TOKENS = 24
MAX_PIN_ID = 2**63 - 1


class PinBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /cache/pins. Text is encoded as /v1/completions does."""

    prompt: str | list[TokenId]
    cache_salt: str | None = None
    ttl_seconds: float | None = None
    add_special_tokens: bool | None = None


def make_admin_app(parts: ServerParts) -> ASGIApp:
    """The whole application, around the given parts."""
    routes = [
        Route("/debug/blocks", contain_faults(map_blocks), methods=["GET"]),
        Route("/cache", contain_faults(list_cache), methods=["GET"]),
        Route("/cache", contain_faults(drop_cache), methods=["DELETE"]),
        Route("/cache/pins", contain_faults(pin_prefix), methods=["POST"]),
        Route("/cache/pins/{pin_id}", contain_faults(unpin_prefix), methods=["DELETE"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    app.state.parts = parts
    return app


async def map_blocks(request: Request) -> Response:
    """Which block belongs to whom, just now."""
    parts: ServerParts = request.app.state.parts
    return json_response(await parts.front.ask_cache(MapBlocks))


async def list_cache(request: Request) -> Response:
    """What is cached and pinned; each prefix with the beginning of its text."""
    parts: ServerParts = request.app.state.parts
    listing = await parts.front.ask_cache(ListPrefixes)
    if parts.text is not None:
        tokenizer = parts.text.tokenizer
        await asyncio.to_thread(_show_texts, tokenizer, listing.get("prefixes", []))
    return json_response(listing)


async def drop_cache(request: Request) -> Response:
    """Forget all cached prefixes and their pins. What runs is not disturbed."""
    parts: ServerParts = request.app.state.parts
    return json_response(await parts.front.ask_cache(DropPrefixes))


async def unpin_prefix(request: Request) -> Response:
    """Give up a pin; its blocks stay cached for as long as nobody needs them."""
    parts: ServerParts = request.app.state.parts
    text = request.path_params["pin_id"]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_PIN_ID):
        return plain_error(404, f"there is no pin {text[:80]!r}", code="not_found")
    try:
        await parts.front.ask_cache(lambda query_id: UnpinPrefix(query_id, int(text)))
    except RequestError as error:
        return plain_error(404, str(error), code="not_found")
    return json_response({"pin_id": int(text)})


async def pin_prefix(request: Request) -> Response:
    """Keep a prompt's KV in whole blocks, computed first as far as it is not there, for `ttl_seconds`."""
    parts: ServerParts = request.app.state.parts
    text_parts, facts = parts.admit()
    body = await read_body(request, PinBody, parts.config.server.max_body_bytes)
    ttl_seconds = DEFAULT_TTL_SECONDS if body.ttl_seconds is None else body.ttl_seconds
    check_seconds("ttl_seconds", ttl_seconds)
    service = ServiceParams(cache_salt=read_cache_salt(body.cache_salt))
    if not parts.config.engine.cache.prefix_caching:
        raise RequestError("nothing can be pinned: this server runs with --no-prefix-caching")
    if isinstance(body.prompt, str):
        token_ids = await encode_text(
            text_parts,
            facts,
            body.prompt,
            add_special_tokens=body.add_special_tokens is not False,
            param="prompt",
        )
    elif body.add_special_tokens is not None:
        raise RequestError("add_special_tokens has no effect on token ids", param="add_special_tokens")
    else:
        token_ids = body.prompt
    num_wanted = pinnable_tokens(len(token_ids), facts.block_size)

    def question(query_id: int) -> PinPrefix:
        return PinPrefix(query_id, token_ids, ttl_seconds, service.cache_salt)

    earlier = await _pin_what_there_is(parts, question)
    if earlier is not None and earlier["num_tokens"] >= num_wanted:
        return json_response(earlier)
    try:
        await _compute(parts, text_parts.tokenizer, token_ids, service)
        return json_response(await parts.front.ask_cache(question))
    finally:
        if earlier is not None:  # it kept the part that was there while the rest was computed
            pin_id = earlier["pin_id"]
            with contextlib.suppress(OctavoError):  # it has expired, or the engine has ended
                await parts.front.ask_cache(lambda query_id: UnpinPrefix(query_id, pin_id))


async def _pin_what_there_is(parts: ServerParts, question: Any) -> dict[str, Any] | None:
    try:
        return await parts.front.ask_cache(question)
    except RequestError:
        return None  # nothing of it is cached


async def _compute(
    parts: ServerParts, tokenizer: Tokenizer, token_ids: list[int], service: ServiceParams
) -> None:
    """Have the prompt's KV computed, as a request that generates nothing."""
    params = SamplingParams(temperature=0.0, max_tokens=0, detokenize=False)
    generation = Generation(parts.front, tokenizer, [token_ids], params, service=service)
    await generation.start()
    async for _ in generation.deltas():
        pass


def _show_texts(tokenizer: Tokenizer, prefixes: list[dict[str, Any]]) -> None:
    for prefix in prefixes:
        shown = prefix["token_ids"][:SHOWN_TOKENS]
        prefix["text_start"] = tokenizer.decode(shown, skip_special_tokens=False)
