"""Octavo's engine in this process as a target: no HTTP, no text. A thread of its own drives the steps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from octavo.bench.targets.engine_thread import EngineThread, Sink
from octavo.bench.targets.target import (
    Ability,
    BenchRequest,
    Chunk,
    TargetDescription,
    TargetError,
    TargetStep,
)
from octavo.build import EngineFacts, build_engine, build_text
from octavo.config import EngineConfig
from octavo.errors import OctavoError
from octavo.observability.process import own_peak_rss_bytes
from octavo.version import __version__

# Requests are never turned away: a benchmark measures the queue, too.
_MAX_QUEUED_REQUESTS = 1_000_000


class OctavoInProcess:
    """One engine, built by `start` and closed by `stop`."""

    def __init__(self, config: EngineConfig, *, name: str = "octavo", flags: Sequence[str] = ()) -> None:
        """`flags`: what was given on the command line, for the fairness table."""
        self._name, self._flags = name, tuple(flags)
        scheduler = replace(config.scheduler, max_queued_requests=_MAX_QUEUED_REQUESTS)
        self._config = replace(config, scheduler=scheduler)
        self._thread: EngineThread | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset(Ability)

    async def start(self) -> TargetDescription:
        try:
            parts = await asyncio.to_thread(build_engine, self._config)
        except OctavoError as error:
            raise TargetError(f"{self._name}: {error}") from None
        self._thread = EngineThread(parts.engine)
        self._thread.start()
        return self._describe(parts.facts)

    async def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        thread, loop = self._live_thread(), asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | TargetError | None] = asyncio.Queue()

        def sink(item: Chunk | TargetError | None) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        thread.submit([(request, sink)])
        has_ended = False
        try:
            while not has_ended:
                item = await arrived.get()
                has_ended = item is None or isinstance(item, TargetError)
                if isinstance(item, TargetError):
                    raise item
                if item is not None:
                    yield item
        finally:
            if not has_ended:
                thread.abort(request.request_id)

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        thread, loop = self._live_thread(), asyncio.get_running_loop()
        done: asyncio.Future[TargetError | None] = loop.create_future()
        chunks: list[list[Chunk]] = [[] for _ in requests]
        num_left = len(requests)

        def settle(error: TargetError | None) -> None:
            if not done.done():
                done.set_result(error)

        def sink_of(index: int) -> Sink:
            def sink(item: Chunk | TargetError | None) -> None:
                nonlocal num_left
                if isinstance(item, Chunk):
                    chunks[index].append(item)
                    return
                num_left -= 1
                if num_left == 0 or item is not None:
                    loop.call_soon_threadsafe(settle, item)

            return sink

        if requests:
            thread.submit([(request, sink_of(index)) for index, request in enumerate(requests)])
            error = await done
            if error is not None:
                raise error
        return chunks

    async def stats(self) -> Mapping[str, float]:
        return {**self._live_thread().counts(), "peak_rss_bytes": float(own_peak_rss_bytes())}

    async def take_steps(self) -> Sequence[TargetStep]:
        return self._live_thread().take_steps()

    async def reset(self) -> None:
        await asyncio.wrap_future(self._live_thread().drop_cache())

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.end)

    def _live_thread(self) -> EngineThread:
        if self._thread is None:
            raise TargetError(f"{self._name} has not been started")
        return self._thread

    def _describe(self, facts: EngineFacts) -> TargetDescription:
        description = build_text(self._config.model).description
        scheduler = self._config.scheduler
        elements = description.spec.kv_bytes_per_token(1) * facts.num_blocks * facts.block_size
        return TargetDescription(
            name=self._name,
            engine="octavo",
            version=__version__,
            weights=f"{description.source.path.name}, {facts.dtype}",
            compute_format=f"kernels: {facts.kernels}",
            kv_format=f"{8 * facts.kv_bytes // elements}-bit float",
            kv_bytes=facts.kv_bytes,
            num_threads=self._config.compute.num_threads or len(os.sched_getaffinity(0)),
            max_num_seqs=scheduler.max_num_seqs,
            max_num_batched_tokens=scheduler.max_num_batched_tokens,
            prefix_caching=self._config.cache.prefix_caching,
            flags=self._flags,
        )
