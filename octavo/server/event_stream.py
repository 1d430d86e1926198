"""Server-sent events as an ASGI response, ended at once when the client leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.server.generation import Generation

_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would otherwise hold tokens back
}


class EventStream(Response):
    """Sends events as they come. A reader that lags gets several steps' events at once: waiting for its
    socket bounds the memory here, and the inbox's limit bounds it behind.

    Args:
        events: encoded events; each item is sent as it is.
        generation: what makes them; closed when the response ends, however it ends.
        on_end: called last.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        generation: Generation,
        *,
        headers: dict[str, str],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(headers={**_STREAM_HEADERS, **headers})
        del self.headers["content-length"]  # not known: the body is sent in chunks
        self._events = events
        self._generation = generation
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._generation.abandoned_on_disconnect(receive):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for events in self._events:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._generation.close()
            self._on_end()
