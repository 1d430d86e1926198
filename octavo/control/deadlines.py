"""When requests have to have begun or ended. Owns the times; reads no clock and ends nobody itself."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from octavo.request import FinishReason, Request, SequenceStatus


@dataclass(order=True, slots=True)
class _Limit:
    due_seconds: float
    number: int
    request: Request = field(compare=False)
    reason: FinishReason = field(compare=False)


class Deadlines:
    """The limits of live requests, the nearest first. Limits of ended ones are dropped when they come due."""

    def __init__(self) -> None:
        self._limits: list[_Limit] = []
        self._num_pushed = 0

    def watch(self, request: Request, queue_timeout_seconds: float | None) -> None:
        """Note the request's limits, if it has any; `queue_timeout_seconds` where it names none itself."""
        service, arrival = request.service, request.arrival_seconds
        if service.deadline_seconds is not None:
            self._push(arrival + service.deadline_seconds, request, FinishReason.DEADLINE)
        if service.queue_timeout_seconds is not None:
            queue_timeout_seconds = service.queue_timeout_seconds
        if queue_timeout_seconds is not None:
            self._push(arrival + queue_timeout_seconds, request, FinishReason.QUEUE_TIMEOUT)

    def due(self, now_seconds: float) -> list[tuple[Request, FinishReason]]:
        """The requests whose time is over, and which: each limit is told once."""
        over = []
        while self._limits and self._limits[0].due_seconds <= now_seconds:
            limit = heapq.heappop(self._limits)
            if not limit.request.is_finished and not (
                limit.reason is FinishReason.QUEUE_TIMEOUT and _has_begun(limit.request)
            ):
                over.append((limit.request, limit.reason))
        return over

    def _push(self, due_seconds: float, request: Request, reason: FinishReason) -> None:
        self._num_pushed += 1
        heapq.heappush(self._limits, _Limit(due_seconds, self._num_pushed, request, reason))


def describe(request: Request, reason: FinishReason) -> str:
    """One line for the client."""
    if reason is FinishReason.QUEUE_TIMEOUT:
        return "the request waited too long in the queue and was given up; try again in a moment"
    return f"the request's deadline of {request.service.deadline_seconds:g} s has passed"


def _has_begun(request: Request) -> bool:
    return request.num_cached_tokens is not None or any(
        one.status is not SequenceStatus.WAITING for one in request.sequences
    )
