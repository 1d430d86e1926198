"""uvicorn, told to keep out of signals and to sleep when there is nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

# How long responses that have their last words may take to get out of the door.
_LAST_WORDS_SECONDS = 2


class HttpServer(uvicorn.Server):
    """Listens from `run` until `stop`."""

    def __init__(self, app: ASGIApp) -> None:
        # Faults of endpoints are logged where they are contained; what uvicorn says besides is about
        # clients that speak no HTTP.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        self._stop = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=_LAST_WORDS_SECONDS,
            )
        )

    async def run_on(self, listener: socket.socket) -> None:
        """Accept connections on a listening socket until `stop`."""
        await self.serve(sockets=[listener])

    def stop(self) -> None:
        """Accept nothing more; let running responses end, within limits."""
        self.should_exit = True
        self._stop.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the server's business, which drains."""
        yield

    async def main_loop(self) -> None:
        """uvicorn's own wakes ten times a second to see whether it should exit."""
        await self.on_tick(0)
        await self._stop.wait()
