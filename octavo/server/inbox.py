"""Inbox: where one HTTP request waits for what the engine makes of its prompts.

The front puts deltas in and wakes the reader once a step; the reader takes all there is at once.
"""

from __future__ import annotations

import asyncio

from octavo.errors import OctavoError, RequestFailedError
from octavo.request import TokenDelta

# What a client may leave unread before its request is given up. One entry is a token of a sequence.
MAX_UNREAD_DELTAS = 16384


class Inbox:
    """A queue with one reader. Not for several threads."""

    def __init__(self) -> None:
        self._deltas: list[tuple[int, TokenDelta]] = []
        self._error: OctavoError | None = None
        self._has_started = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_overfull(self) -> bool:
        return len(self._deltas) > MAX_UNREAD_DELTAS

    def put(self, prompt_index: int, delta: TokenDelta) -> None:
        """Add a delta. The reader sleeps on until `wake`."""
        self._deltas.append((prompt_index, delta))

    def put_started(self) -> None:
        """The engine began to compute the request."""
        self._has_started = True

    def fail(self, error: OctavoError) -> None:
        """End the request with an error, which the reader meets after what is already there."""
        if self._error is None:
            self._error = error
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait_started(self) -> None:
        """Until the engine began, so that a refusal can still be an HTTP status.

        Raises:
            OctavoError: the request was refused or has failed.
        """
        while self._error is None and not (self._has_started or self._deltas):
            await self._sleep()
        if self._error is not None:
            raise self._error

    async def take(self) -> list[tuple[int, TokenDelta]]:
        """(index of the prompt, delta) of all that came since the last call; at least one.

        Raises:
            OctavoError: the request has failed and nothing is left to read.
        """
        while not self._deltas:
            if self._error is not None:
                raise self._error
            await self._sleep()
        deltas, self._deltas = self._deltas, []
        return deltas

    async def _sleep(self) -> None:
        if self._waiter is not None:
            raise RequestFailedError("internal fault: two readers of one request")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
