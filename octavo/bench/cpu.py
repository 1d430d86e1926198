"""The CPU's goals in one run: mixed work, prefill, decoding by number of streams, HTTP, start-up.

Drives the engine itself, greedy and without text, and a server of its own with the same mixed work.
Kinds of work take turns, so that a slow minute hits all.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from octavo.bench.cpu_spec import CpuSpec
from octavo.bench.load.client import run_batch
from octavo.bench.load.works import Work, WorkKind, rate_of
from octavo.bench.machine import describe_machine
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.startup import measure_startup
from octavo.bench.targets.registry import make_target, parse_target
from octavo.bench.targets.settings import TargetSettings
from octavo.bench.targets.target import BenchRequest, TargetError
from octavo.bench.workload import WorkloadRequest, WorkloadSpec, make_workload
from octavo.build import build_engine, build_text
from octavo.config import EngineConfig
from octavo.errors import ConfigError, RequestFailedError
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.control.engine import Engine


@dataclass(frozen=True, kw_only=True)
class CpuWork:
    """One kind of work. `values` are of the repeats; the warm-up is not among them."""

    name: str
    unit: str
    values: list[float]

    def as_json(self) -> dict[str, Any]:
        ends = {"median": statistics.median(self.values), "min": min(self.values), "max": max(self.values)}
        return asdict(self) | ends


def run_cpu(
    config: EngineConfig,
    spec: CpuSpec,
    serve_arguments: list[str],
    *,
    on_done: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Everything, as one results file.

    Args:
        serve_arguments: of the server whose start is timed.
        on_done: called `num_measurements(spec)` times.

    Raises:
        ModelLoadError, ConfigError, EngineUnavailableError: the engine or the server cannot be had.
        RequestError: the work does not fit the model's context or the KV pool.
        RequestFailedError: a request broke.
    """
    advance = on_done or (lambda: None)
    ordinary = ordinary_token_ids(build_text(config.model))
    works = _make_works(spec, ordinary)
    num_most = max(len(requests) for _, requests in works.values())
    if max(spec.streams) > config.scheduler.max_num_seqs:
        raise ConfigError(f"--streams {max(spec.streams)} must not exceed --max-num-seqs")
    load_before = os.getloadavg()
    starts = []
    for repeat in range(-1, spec.repeats):
        start_seconds = measure_startup(serve_arguments).ready_seconds
        if repeat >= 0:
            starts.append(start_seconds)
        advance()
    server = _Server(config)
    parts = build_engine(replace(config, scheduler=replace(config.scheduler, max_queued_requests=num_most)))
    http_name = f"{next(iter(works))}, through HTTP"
    values: dict[str, list[float]] = {name: [] for name in (*works, http_name)}
    try:
        for repeat in range(-1, spec.repeats):
            rate = server.output_rate(next(iter(works.values()))[1], repeat)
            if repeat >= 0:
                values[http_name].append(rate)
            advance()
            for name, (measure, requests) in works.items():
                rate = measure(parts.engine, requests)
                if repeat >= 0:
                    values[name].append(rate)
                advance()
    finally:
        parts.engine.close()
        server.stop()
    measured = [CpuWork(name=name, unit="tok/s", values=rates) for name, rates in values.items()]
    measured.append(CpuWork(name="start to ready", unit="s", values=starts))
    return {
        "benchmark": "cpu",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(describe_machine()),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "engine": asdict(parts.facts),
        "spec": asdict(spec),
        "works": [work.as_json() for work in measured],
    }


def num_measurements(spec: CpuSpec) -> int:
    """How often `run_cpu` reports that one is done."""
    return (spec.repeats + 1) * (4 + len(spec.streams))


class _Server:
    """`octavo serve` with the engine's own settings, and a client on the same cores."""

    def __init__(self, config: EngineConfig) -> None:
        self._loop = asyncio.Runner()
        self._target = make_target(parse_target("octavo-http"), TargetSettings.of(config))
        try:
            self._loop.run(self._target.start())
        except TargetError:
            self.stop()
            raise

    def output_rate(self, requests: list[WorkloadRequest], repeat: int) -> float:
        """Output tokens a second, streamed, with nothing cached before."""
        sent = [
            BenchRequest(
                request_id=f"{repeat}/{number}",
                prompt_token_ids=one.prompt_token_ids,
                prompt_text="",
                num_output_tokens=one.params.max_tokens or 1,
            )
            for number, one in enumerate(requests)
        ]
        self._loop.run(self._target.reset())
        run = self._loop.run(run_batch(self._target, sent, workload="mixed"))
        return rate_of(Work("mixed", WorkKind.MIXED, sent), run)

    def stop(self) -> None:
        self._loop.run(self._target.stop())
        self._loop.close()


_Measure = Callable[["Engine", list[WorkloadRequest]], float]


def _make_works(spec: CpuSpec, ordinary: list[int]) -> dict[str, tuple[_Measure, list[WorkloadRequest]]]:
    tokens = random.Random(spec.seed)

    def request(num_prompt_tokens: int, num_output_tokens: int) -> WorkloadRequest:
        params = SamplingParams(temperature=0.0, max_tokens=num_output_tokens, ignore_eos=True)
        return WorkloadRequest(tokens.choices(ordinary, k=num_prompt_tokens), params)

    mixed = make_workload(WorkloadSpec(num_requests=spec.num_requests, seed=spec.seed), ordinary)
    works: dict[str, tuple[_Measure, list[WorkloadRequest]]] = {
        f"mixed, {spec.num_requests} at once": (_output_rate, mixed),
        f"prefill {spec.prefill}": (_prompt_rate, [request(spec.prefill, 1)]),
    }
    for num_streams in spec.streams:
        # The first token comes with the prompt, and streams begin in different steps: room for both.
        streams = [request(spec.context, 2 * spec.num_decoded + 1) for _ in range(num_streams)]
        works[f"decode, {num_streams} streams"] = (_decode_rate, streams)
    return works


def _output_rate(engine: Engine, requests: list[WorkloadRequest]) -> float:
    seconds, _ = _drive(engine, requests)
    return sum(one.params.max_tokens or 0 for one in requests) / seconds


def _prompt_rate(engine: Engine, requests: list[WorkloadRequest]) -> float:
    seconds, _ = _drive(engine, requests)
    return sum(len(one.prompt_token_ids) for one in requests) / seconds


def _decode_rate(engine: Engine, requests: list[WorkloadRequest]) -> float:
    """Over the steps in which every stream decodes, and nothing else happens."""
    _, steps = _drive(engine, requests)
    full = [seconds for decoded, prefilled, seconds in steps if (decoded, prefilled) == (len(requests), 0)]
    if not full:
        raise ConfigError(
            f"{len(requests)} streams never decoded together; give more --num-decoded or KV memory"
        )
    return len(requests) * len(full) / sum(full)


def _drive(engine: Engine, requests: list[WorkloadRequest]) -> tuple[float, list[tuple[int, int, float]]]:
    """Seconds in all; of each step, tokens decoded and prefilled, and seconds. Nothing is cached before."""
    engine.cache.drop()
    steps = []
    started_seconds = time.perf_counter()
    for number, one in enumerate(requests):
        engine.submit(str(number), one.prompt_token_ids, one.params)
    while engine.has_work:
        step_started_seconds = time.perf_counter()
        for delta in engine.step():
            if delta.finish_reason is FinishReason.ERROR:
                raise RequestFailedError(f"request {delta.request_id} failed: {delta.error}")
        seconds = time.perf_counter() - step_started_seconds
        if engine.last_step is not None:
            trace = engine.last_step
            steps.append((trace.num_decode_tokens, trace.num_prefill_tokens, seconds))
    return time.perf_counter() - started_seconds, steps
