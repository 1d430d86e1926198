"""Sends requests to a target when they are due and writes down what comes back, and when.

Judges nothing: a request that fails is a record with an error, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from octavo.bench.targets.target import (
    BenchRequest,
    Chunk,
    RequestRecord,
    RunRecord,
    Target,
    TargetError,
)

# A server may be slow; one that says nothing for so long is given up.
DEFAULT_TIMEOUT_SECONDS = 600.0
# Between making the schedule and its first request.
_LEAD_NS = 20_000_000


async def run_load(
    target: Target,
    requests: Sequence[BenchRequest],
    due_seconds: Sequence[float],
    *,
    workload: str,
    block: int = 0,
    max_concurrency: int | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    on_end: Callable[[], None] | None = None,
) -> RunRecord:
    """One run: every request streamed, sent when it is due.

    Args:
        due_seconds: offsets from the start, one for each request.
        max_concurrency: requests that may be out at once; others wait, and their latency counts it.
        timeout_seconds: for each request, from its sending.
        on_end: called after each request.
    """
    room = asyncio.Semaphore(max_concurrency or max(len(requests), 1))
    before = await _counts(target)
    await target.take_steps()
    started_ns = time.monotonic_ns() + _LEAD_NS
    records = [
        new_record(request, started_ns + round(due * 1e9))
        for request, due in zip(requests, due_seconds, strict=True)
    ]

    async def run_one(request: BenchRequest, record: RequestRecord) -> None:
        wait_seconds = (record.scheduled_ns - time.monotonic_ns()) / 1e9
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)
        async with room:
            await send(target, request, record, timeout_seconds=timeout_seconds)
        if on_end is not None:
            on_end()

    await asyncio.gather(*(run_one(*pair) for pair in zip(requests, records, strict=True)))
    ended_ns = time.monotonic_ns()
    return await _finish(target, workload, block, (started_ns, ended_ns), records, before)


async def run_batch(
    target: Target, requests: Sequence[BenchRequest], *, workload: str, block: int = 0
) -> RunRecord:
    """One run with everything handed over at once. Raises TargetError: the batch failed."""
    before = await _counts(target)
    await target.take_steps()
    started_ns = time.monotonic_ns()
    chunks = await target.generate_batch(requests)
    ended_ns = time.monotonic_ns()
    records = []
    for request, its_chunks in zip(requests, chunks, strict=True):
        record = new_record(request, started_ns)
        record.sent_ns = started_ns
        for chunk in its_chunks:
            _note(record, chunk)
        record.end_ns = record.chunk_ns[-1] if record.chunk_ns else ended_ns
        records.append(record)
    return await _finish(target, workload, block, (started_ns, ended_ns), records, before)


def new_record(request: BenchRequest, scheduled_ns: int) -> RequestRecord:
    """Of a request that has not been sent; all of its samples or beams count."""
    return RequestRecord(
        request_id=request.request_id,
        num_prompt_tokens=len(request.prompt_token_ids),
        num_requested_tokens=request.num_output_tokens * (request.beam_width or request.num_samples),
        scheduled_ns=scheduled_ns,
    )


def _note(record: RequestRecord, chunk: Chunk) -> None:
    if chunk.num_tokens:
        record.chunk_ns.append(chunk.arrival_ns)
        record.chunk_tokens.append(chunk.num_tokens)


async def send(
    target: Target,
    request: BenchRequest,
    record: RequestRecord,
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    on_tokens: Callable[[int], None] | None = None,
) -> None:
    """One request, now, and into its record; `on_tokens` hears of each chunk's tokens as it comes."""
    record.sent_ns = time.monotonic_ns()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in target.generate(request):
                _note(record, chunk)
                if on_tokens is not None and chunk.num_tokens:
                    on_tokens(chunk.num_tokens)
    except TimeoutError:
        record.error = f"not done after {timeout_seconds:g} s"
    except TargetError as error:
        record.error = str(error)
    record.end_ns = record.chunk_ns[-1] if record.chunk_ns else time.monotonic_ns()


async def _finish(
    target: Target,
    workload: str,
    block: int,
    times_ns: tuple[int, int],
    records: list[RequestRecord],
    before: dict[str, float],
) -> RunRecord:
    after = await _counts(target)
    # Peaks and gauges do not add up: only what grew is this run's.
    stats = {
        name: value if name == "peak_rss_bytes" else value - before.get(name, 0.0)
        for name, value in after.items()
    }
    try:
        steps = list(await target.take_steps())
    except TargetError:
        steps = []
    return RunRecord(
        target=target.name,
        workload=workload,
        block=block,
        started_ns=times_ns[0],
        ended_ns=times_ns[1],
        requests=records,
        steps=steps,
        stats=stats,
    )


async def _counts(target: Target) -> dict[str, float]:
    """Nothing from a target that has died meanwhile: its requests tell of it."""
    try:
        return dict(await target.stats())
    except TargetError:
        return {}
