"""Questions about the engine's cache that wait for their answers. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from octavo.errors import EngineUnavailableError, OctavoError, RequestError, RequestFailedError
from octavo.messages import CacheAnswer, CacheQuestion, ToEngine

# The engine answers between two steps. The longest step of a slow machine is shorter than this.
ANSWER_SECONDS = 30.0


class CacheQuestions:
    """Asks, and hands each answer to whoever asked.

    Args:
        send: delivers a message to the engine.
    """

    def __init__(self, send: Callable[[ToEngine], None]) -> None:
        self._send = send
        self._num_asked = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, make_question: Callable[[int], CacheQuestion]) -> dict[str, Any]:
        """The answer's `found`.

        Args:
            make_question: the question, given its id.

        Raises:
            RequestError: the question was wrong.
            RequestFailedError: the engine broke on it.
            EngineUnavailableError: no answer came in time, or the engine ended.
        """
        self._num_asked += 1
        query_id = self._num_asked
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[query_id] = answer
        try:
            self._send(make_question(query_id))
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise EngineUnavailableError(f"the engine did not answer within {ANSWER_SECONDS:g} s") from None
        finally:
            self._waiting.pop(query_id, None)

    def receive(self, message: CacheAnswer) -> None:
        """An answer came. Nobody may be waiting for it any more."""
        answer = self._waiting.pop(message.query_id, None)
        if answer is None or answer.done():
            return
        if message.error is None:
            answer.set_result(message.found or {})
        elif message.is_fault:
            answer.set_exception(RequestFailedError(message.error))
        else:
            answer.set_exception(RequestError(message.error))

    def fail_all(self, error: OctavoError) -> None:
        """No answer will come."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
