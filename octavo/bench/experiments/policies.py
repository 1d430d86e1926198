"""How requests reach a target: when due, or in batches as older servers formed them.

Batching rules are enforced from outside, on whatever kernels the target has: a static batch is submitted at
once, every row as long as the longest, and the next begins when all have ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from octavo.bench.experiments.experiment import OPEN_LOOP, TimedRequest
from octavo.bench.load.client import new_record, send
from octavo.bench.targets.target import BenchRequest, RequestRecord, Target

STATIC_GLOBAL = "static, padded to the longest of all"
STATIC_OWN = "static, padded to its own longest"
TGI_LIKE = "TGI-like admission"
ONE_BY_ONE = "one at a time"

# Text Generation Inference as the Anyscale benchmark ran it: waiting_served_ratio and max_waiting_tokens.
_WAITING_SERVED_RATIO = 1.2
_MAX_WAITING_TOKENS = 7
_REQUEST_TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class _Times:
    """When requests are due, by time.monotonic_ns()."""

    start_ns: int

    def due(self, one: TimedRequest) -> int:
        return self.start_ns + one.due_ns


async def drive(
    target: Target, load: Sequence[TimedRequest], policy: str, num_rows: int
) -> list[RequestRecord]:
    """Send everything and wait for its end; a request that fails has its error in its record.

    Args:
        num_rows: rows of a static batch, and of TGI-like admission; no effect on open-loop.
    """
    times = _Times(time.monotonic_ns())
    if policy == OPEN_LOOP:
        return list(await asyncio.gather(*(_send_when_due(target, one, times) for one in load)))
    if policy == ONE_BY_ONE:  # a closed loop: each is due when the one before has ended
        return [await _send(target, one.request, time.monotonic_ns()) for one in load]
    if policy == TGI_LIKE:
        return await _TgiLikeAdmission(target, times, num_rows).run(load)
    if policy not in (STATIC_GLOBAL, STATIC_OWN):
        raise ValueError(f"there is no policy {policy!r}")
    longest = max(one.request.num_output_tokens for one in load)
    records: list[RequestRecord] = []
    for first in range(0, len(load), num_rows):
        batch = load[first : first + num_rows]
        length = longest if policy == STATIC_GLOBAL else max(one.request.num_output_tokens for one in batch)
        records += await _run_static_batch(target, batch, length, times)
    return records


async def _send_when_due(target: Target, one: TimedRequest, times: _Times) -> RequestRecord:
    wait_ns = times.due(one) - time.monotonic_ns()
    if wait_ns > 0:
        await asyncio.sleep(wait_ns / 1e9)
    return await _send(target, one.request, times.due(one))


async def _send(
    target: Target,
    request: BenchRequest,
    scheduled_ns: int,
    *,
    on_tokens: Callable[[int], None] | None = None,
) -> RequestRecord:
    record = new_record(request, scheduled_ns)
    await send(target, request, record, timeout_seconds=_REQUEST_TIMEOUT_SECONDS, on_tokens=on_tokens)
    return record


async def _run_static_batch(
    target: Target, batch: Sequence[TimedRequest], length: int, times: _Times
) -> list[RequestRecord]:
    """All rows to `length`; what a row makes beyond its own request is padding, and counts for nothing.

    A request's end is its batch's: a static server answers when all of the batch has ended.
    """
    latest_ns = max(times.due(one) for one in batch)
    wait_ns = latest_ns - time.monotonic_ns()
    if wait_ns > 0:
        await asyncio.sleep(wait_ns / 1e9)
    padded = [replace(one.request, num_output_tokens=length) for one in batch]
    records = await asyncio.gather(
        *(_send(target, request, times.due(one)) for one, request in zip(batch, padded, strict=True))
    )
    end_ns = max(record.end_ns or 0 for record in records)
    for one, record in zip(batch, records, strict=True):
        record.num_requested_tokens = one.request.num_output_tokens
        record.end_ns = end_ns
        _cut(record, one.request.num_output_tokens)
    return list(records)


def _cut(record: RequestRecord, num_tokens: int) -> None:
    """Keep the chunks of the first `num_tokens` tokens."""
    kept = 0
    for index, count in enumerate(record.chunk_tokens):
        if kept + count >= num_tokens:
            record.chunk_tokens[index:] = [num_tokens - kept]
            del record.chunk_ns[index + 1 :]
            return
        kept += count


class _TgiLikeAdmission:
    """Text Generation Inference's rule for who joins, applied outside of the engine.

    A request is charged prompt + output tokens against the batch's budget when it joins; while others run,
    newcomers join only when enough of them wait, or after so many decode steps. What differs from TGI
    itself: our engine computes newcomers' prompts beside the decodes instead of pausing them.
    """

    def __init__(self, target: Target, times: _Times, num_rows: int) -> None:
        self._target = target
        self._times = times
        self._num_rows = num_rows
        self._changed = asyncio.Event()
        self._num_tokens_since_admission = 0
        self._running: dict[str, int] = {}

    async def run(self, load: Sequence[TimedRequest]) -> list[RequestRecord]:
        waiting = list(load)
        # As many tokens as the rows would hold if all were as long as the longest.
        budget = self._num_rows * max(_charge(one) for one in load)
        tasks: list[asyncio.Task[RequestRecord]] = []
        while waiting:
            due = [one for one in waiting if self._times.due(one) <= time.monotonic_ns()]
            if due and self._may_join(len(due)):
                for one in due:
                    if len(self._running) == self._num_rows:
                        break
                    if sum(self._running.values()) + _charge(one) > budget:
                        break
                    self._running[one.request.request_id] = _charge(one)
                    waiting.remove(one)
                    tasks.append(asyncio.create_task(self._follow(one)))
                self._num_tokens_since_admission = 0
            if waiting:
                self._changed.clear()
                await self._wait_for_change(waiting[0])
        return [await task for task in tasks]

    def _may_join(self, num_waiting: int) -> bool:
        running = len(self._running)
        if running == 0 or num_waiting / running >= _WAITING_SERVED_RATIO:
            return True
        return self._num_tokens_since_admission >= _MAX_WAITING_TOKENS * running

    async def _wait_for_change(self, following: TimedRequest) -> None:
        wait_seconds = max((self._times.due(following) - time.monotonic_ns()) / 1e9, 0.001)
        try:
            async with asyncio.timeout(wait_seconds if not self._running else None):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _follow(self, one: TimedRequest) -> RequestRecord:
        record = await _send(self._target, one.request, self._times.due(one), on_tokens=self._count)
        del self._running[one.request.request_id]
        self._changed.set()
        return record

    def _count(self, num_tokens: int) -> None:
        self._num_tokens_since_admission += num_tokens
        self._changed.set()


def _charge(one: TimedRequest) -> int:
    return len(one.request.prompt_token_ids) + one.request.num_output_tokens
