"""How a generation is answered: in one piece or as a stream, and what the log says of it afterwards.

Both ways watch for the client leaving, and free the request's blocks at once when it does.
"""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from octavo.server.event_stream import EventStream
from octavo.server.generation import Generation
from octavo.server.openai.reply import ReplyFormat, ReplyHead, UsageOptions, full_reply, stream_reply
from octavo.server.openai.schema import GenerationBody
from octavo.server.parts import ServerParts, make_reply_id
from octavo.server.replies import json_response

_log = logging.getLogger("octavo.requests")


async def answer(
    request: Request,
    body: GenerationBody,
    generation: Generation,
    reply_format: ReplyFormat,
    *,
    id_prefix: str,
) -> Response:
    """Start the generation and answer with it.

    Raises:
        OctavoError: it was refused, or failed before anything was sent.
    """
    parts: ServerParts = request.app.state.parts
    reply_id = make_reply_id(id_prefix, request.headers.get("x-request-id") or body.request_id)
    head = ReplyHead(reply_id, parts.model_name)
    headers = {"X-Request-Id": reply_id}

    def log_end() -> None:
        if parts.config.server.log_requests:
            _log.info("%s %s %s", request.url.path, reply_id, generation.describe())

    try:
        async with generation.abandoned_on_disconnect(request.receive):
            await generation.start()
            if not body.stream:
                reply = await full_reply(generation, head, reply_format)
                log_end()
                return json_response(reply, headers=headers)
    except BaseException:
        generation.close()
        log_end()
        raise
    events = stream_reply(generation, head, reply_format, UsageOptions.of(body.stream_options))
    return EventStream(events, generation, headers=headers, on_end=log_end)
