"""Octavo in this process as a benchmark's target: the engine on a thread of its own, no text, no HTTP."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from octavo.bench.targets.target import (
    Ability,
    BenchRequest,
    Chunk,
    TargetDescription,
    TargetError,
    TargetStep,
)
from octavo.build import EngineParts, build_engine
from octavo.config import EngineConfig
from octavo.errors import OctavoError
from octavo.observability.process import peak_rss_bytes
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams
from octavo.version import __version__

if TYPE_CHECKING:
    from octavo.control.step_trace import StepTrace

_LONGEST_QUEUE = 1_000_000
_GROUPS = ("model", "compute", "cache", "scheduler")


def with_overrides(config: EngineConfig, overrides: Mapping[str, Any]) -> EngineConfig:
    """The config with other values for these fields.

    Raises:
        KeyError: there is no such field.
        ConfigError: a value is outside its range.
    """
    left = dict(overrides)
    for group in _GROUPS:
        settings = getattr(config, group)
        changed = {field.name: left.pop(field.name) for field in fields(settings) if field.name in left}
        config = replace(config, **{group: replace(settings, **changed)})
    if left:
        raise KeyError(f"no setting is called {next(iter(left))!r}")
    return config


@dataclass(slots=True)
class _LiveRequest:
    """One request on its way: chunks go to `chunks`; None ends them, an error breaks them."""

    request: BenchRequest
    chunks: asyncio.Queue[Chunk | TargetError | None]
    num_left: int = 1  # choices that have not ended


class EngineTarget:
    """Octavo's engine. Requests come from one event loop; the engine's thread steps while there is work."""

    abilities = frozenset(
        {
            *(Ability.STREAM, Ability.TOKEN_IDS, Ability.IGNORE_EOS, Ability.CONTINUOUS),
            *(Ability.SAMPLES, Ability.BEAM, Ability.STEPS, Ability.CACHE_RESET),
        }
    )

    def __init__(self, name: str, config: EngineConfig) -> None:
        self._name = name
        self._config = replace(
            config, scheduler=replace(config.scheduler, max_queued_requests=_LONGEST_QUEUE)
        )
        self._parts: EngineParts | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inbox: queue.SimpleQueue[_LiveRequest | Callable[[], None] | None] = queue.SimpleQueue()
        self._live: dict[str, _LiveRequest] = {}
        self._steps: list[TargetStep] = []
        self._counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> TargetDescription:
        """Load the model. Raises TargetError where that fails."""
        self._loop = asyncio.get_running_loop()
        try:
            self._parts = await asyncio.to_thread(build_engine, self._config)
        except OctavoError as error:
            raise TargetError(f"{self._name}: {error}") from None
        self._thread = threading.Thread(target=self._serve, name=f"bench-{self._name}", daemon=True)
        self._thread.start()
        return self._describe(self._parts)

    async def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        """Chunks as the steps bring them, one a choice and step."""
        live = _LiveRequest(request, asyncio.Queue())
        self._inbox.put(live)
        while (item := await live.chunks.get()) is not None:
            if isinstance(item, TargetError):
                raise item
            yield item

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        """All at once, to the end."""

        async def collect(request: BenchRequest) -> list[Chunk]:
            return [chunk async for chunk in self.generate(request)]

        return await asyncio.gather(*map(collect, requests))

    async def stats(self) -> Mapping[str, float]:
        return {"peak_rss_bytes": float(peak_rss_bytes(os.getpid())), **self._counts}

    async def take_steps(self) -> Sequence[TargetStep]:
        steps, self._steps = self._steps, []
        return steps

    async def reset(self) -> None:
        """Forget cached prefixes; done between two steps."""
        done = asyncio.Event()
        loop, parts = self._running()

        def drop() -> None:
            parts.engine.cache.drop()
            loop.call_soon_threadsafe(done.set)

        self._inbox.put(drop)
        await done.wait()

    async def stop(self) -> None:
        """End the thread and give the memory back."""
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        if self._parts is not None:
            self._parts.engine.close()
            self._parts = None

    def _running(self) -> tuple[asyncio.AbstractEventLoop, EngineParts]:
        if self._loop is None or self._parts is None:
            raise TargetError(f"{self._name}: it is not started")
        return self._loop, self._parts

    # -- on the engine's thread

    def _serve(self) -> None:
        _, parts = self._running()
        engine = parts.engine
        while True:
            while not (engine.has_work and self._inbox.empty()):
                item = self._inbox.get()
                if item is None:
                    return
                if isinstance(item, _LiveRequest):
                    self._submit(parts, item)
                else:
                    item()
            try:
                self._step(parts)
            except Exception as error:  # an engine that broke is reported, and takes nobody along
                self._break(f"{self._name}: the engine broke: {type(error).__name__}: {error}")
                return

    def _submit(self, parts: EngineParts, live: _LiveRequest) -> None:
        request = live.request
        params = SamplingParams(
            n=max(request.num_samples, request.beam_width, 1),
            temperature=1.0 if request.num_samples > 1 else 0.0,
            use_beam_search=request.beam_width > 0,
            seed=0,
            max_tokens=request.num_output_tokens,
            ignore_eos=True,
        )
        try:
            parts.engine.submit(request.request_id, list(request.prompt_token_ids), params)
        except OctavoError as error:
            self._tell(live, TargetError(f"{self._name}: {error}"))
            return
        live.num_left = params.n
        self._live[request.request_id] = live
        self._counts["prompt_tokens"] += len(request.prompt_token_ids)

    def _step(self, parts: EngineParts) -> None:
        start_ns = time.monotonic_ns()
        deltas = parts.engine.step()
        end_ns = time.monotonic_ns()
        trace = parts.engine.last_step
        if trace is not None:
            self._steps.append(_target_step(trace, start_ns, end_ns))
            self._counts["preemptions"] += trace.num_preemptions
        for delta in deltas:
            live = self._live[delta.request_id]
            if delta.finish_reason is FinishReason.ERROR:
                self._tell(live, TargetError(f"{self._name}: request {delta.request_id}: {delta.error}"))
            elif delta.token_ids:
                ids = tuple(delta.token_ids)
                self._tell(live, Chunk(arrival_ns=end_ns, num_tokens=len(ids), token_ids=ids))
            if delta.finish_reason is not None:
                live.num_left -= 1
                if live.num_left == 0:
                    del self._live[delta.request_id]
                    self._counts["prefix_hit_tokens"] += delta.num_cached_tokens
                    self._tell(live, None)

    def _tell(self, live: _LiveRequest, item: Chunk | TargetError | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(live.chunks.put_nowait, item)

    def _break(self, line: str) -> None:
        for live in self._live.values():
            self._tell(live, TargetError(line))
        while (item := self._inbox.get()) is not None:  # until `stop`
            if isinstance(item, _LiveRequest):
                self._tell(item, TargetError(line))
            else:
                item()

    def _describe(self, parts: EngineParts) -> TargetDescription:
        config, facts = self._config, parts.facts
        kv_dtype = config.cache.kv_cache_dtype
        return TargetDescription(
            name=self._name,
            engine="Octavo, in process",
            version=__version__,
            weights=f"{facts.model_name}, {facts.dtype}",
            compute_format=f"kernels: {facts.kernels}",
            kv_format="float16" if (kv_dtype, facts.device) == ("auto", "cpu") else kv_dtype,
            kv_bytes=facts.kv_bytes,
            num_threads=config.compute.num_threads or len(os.sched_getaffinity(0)),
            max_num_seqs=config.scheduler.max_num_seqs,
            max_num_batched_tokens=config.scheduler.max_num_batched_tokens,
            prefix_caching=config.cache.prefix_caching,
            flags=tuple(_changed_settings(config)),
        )


def _target_step(trace: StepTrace, start_ns: int, end_ns: int) -> TargetStep:
    saved = trace.blocks_used * trace.sharing / (1 - trace.sharing) if trace.sharing < 1 else 0.0
    return TargetStep(
        start_ns=start_ns,
        end_ns=end_ns,
        num_running=trace.num_running,
        num_waiting=trace.num_waiting,
        num_prefill_tokens=trace.num_prefill_tokens,
        num_decode_tokens=trace.num_decode_tokens,
        blocks_used=trace.blocks_used,
        blocks_shared=round(saved),
        blocks_cached=trace.blocks_cached,
        blocks_free=trace.blocks_free - trace.blocks_cached,
        num_preemptions=trace.num_preemptions,
    )


def _changed_settings(config: EngineConfig) -> list[str]:
    """What differs from the defaults, as flags."""
    return [
        f"--{field.name.replace('_', '-')}={getattr(getattr(config, group), field.name)}"
        for group in _GROUPS
        for field in fields(getattr(config, group))
        if getattr(getattr(config, group), field.name) not in (field.default, _LONGEST_QUEUE)
    ]
