"""What the prefix cache gains where prompts begin alike: the vLLM paper's figure 16, caching on against off.

Two engines of one process take turns on the same requests. Drives the engines itself: no text, no HTTP.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from octavo.bench import paper
from octavo.bench.machine import describe_machine
from octavo.bench.prefix_spec import PrefixSpec
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.statistics import paired_ratio, quantile
from octavo.bench.workload import WorkloadRequest, WorkloadSpec, make_workload
from octavo.build import EngineFacts, build_engine, build_text
from octavo.config import EngineConfig
from octavo.errors import RequestFailedError
from octavo.request import FinishReason

if TYPE_CHECKING:
    from octavo.control.engine import Engine

DIFFERENCES = (
    "The paper ran LLaMA-13B on WMT16 En-De sentences and compares with Orca (Oracle), which has no paging; "
    "here the same engine runs with its cache on and off, on random tokens with drawn lengths, all at once."
)


@dataclass(frozen=True, kw_only=True)
class PrefixRun:
    """One engine on one set of requests.

    Attributes:
        ttft_ms: first token, from the moment all requests were submitted.
        hit_rate: prompt tokens that were not computed, over all.
    """

    run_seconds: float
    num_prompt_tokens: int
    num_output_tokens: int
    hit_rate: float
    ttft_ms: list[float]

    @property
    def output_tokens_per_second(self) -> float:
        return self.num_output_tokens / self.run_seconds

    @property
    def total_tokens_per_second(self) -> float:
        """Prompt tokens count whether they were computed or found."""
        return (self.num_prompt_tokens + self.num_output_tokens) / self.run_seconds

    def as_json(self) -> dict[str, Any]:
        return {
            "run_seconds": round(self.run_seconds, 4),
            "output_tokens_per_second": round(self.output_tokens_per_second, 2),
            "total_tokens_per_second": round(self.total_tokens_per_second, 2),
            "hit_rate": round(self.hit_rate, 4),
            "median_ttft_ms": round(quantile(self.ttft_ms, 0.5), 2),
            "max_ttft_ms": round(max(self.ttft_ms), 2),
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_output_tokens": self.num_output_tokens,
        }


@dataclass(frozen=True, kw_only=True)
class PrefixCase:
    """One length of prefix: runs in pairs, caching on and off."""

    num_prefix_tokens: int
    on: list[PrefixRun]
    off: list[PrefixRun]

    def as_json(self) -> dict[str, Any]:
        throughput = paired_ratio(
            [run.output_tokens_per_second for run in self.on],
            [run.output_tokens_per_second for run in self.off],
        )
        ttft = paired_ratio(
            [quantile(run.ttft_ms, 0.5) for run in self.off], [quantile(run.ttft_ms, 0.5) for run in self.on]
        )
        return {
            "num_prefix_tokens": self.num_prefix_tokens,
            "throughput_speedup": asdict(throughput),
            "median_ttft_speedup": asdict(ttft),
            "paper_speedup_over_orca_oracle": paper.prefix_speedup(self.num_prefix_tokens),
            "on": [run.as_json() for run in self.on],
            "off": [run.as_json() for run in self.off],
        }


@dataclass(frozen=True, kw_only=True)
class PrefixReport:
    spec: PrefixSpec
    engine: EngineFacts
    cases: list[PrefixCase]

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": "prefix",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe_machine()),
            "load_average": os.getloadavg(),
            "engine": asdict(self.engine),
            "spec": asdict(self.spec),
            "what_differs": DIFFERENCES,
            "interval": "95 %, Student's t on the logarithms of the repeats' ratios",
            "cases": [case.as_json() for case in self.cases],
        }


def run_prefix(
    config: EngineConfig, spec: PrefixSpec, *, on_done: Callable[[], None] | None = None
) -> PrefixReport:
    """Load the model twice and run every prefix. A first pair of runs warms up and is thrown away.

    Args:
        on_done: called after each pair of runs.

    Raises:
        ModelLoadError, ConfigError: an engine cannot be built.
        RequestError: a request does not fit the model's context or the KV pool.
        RequestFailedError: a request broke.
    """
    ordinary = ordinary_token_ids(build_text(config.model))
    scheduler = replace(config.scheduler, max_queued_requests=spec.num_requests)
    config = replace(config, scheduler=scheduler)
    on = build_engine(replace(config, cache=replace(config.cache, prefix_caching=True)))
    off = build_engine(replace(config, cache=replace(config.cache, prefix_caching=False)))
    cases = []
    try:
        for num_prefix_tokens in spec.prefixes:
            case = PrefixCase(num_prefix_tokens=num_prefix_tokens, on=[], off=[])
            for repeat in range(-1, spec.repeats):
                requests = make_requests(spec, num_prefix_tokens, repeat, ordinary)
                order = [(on.engine, case.on), (off.engine, case.off)]
                for engine, runs in order if repeat % 2 else reversed(order):
                    run = run_requests(engine, requests)
                    if repeat >= 0:
                        runs.append(run)
                if on_done is not None:
                    on_done()
            cases.append(case)
    finally:
        on.engine.close()
        off.engine.close()
    return PrefixReport(spec=spec, engine=on.facts, cases=cases)


def make_requests(
    spec: PrefixSpec, num_prefix_tokens: int, repeat: int, ordinary: list[int]
) -> list[WorkloadRequest]:
    """Requests that begin with the same tokens; other tokens and lengths in every repeat."""
    seed = (spec.seed * 1000 + repeat + 1) * 2
    prefix = random.Random(f"{seed}/{num_prefix_tokens}").choices(ordinary, k=num_prefix_tokens)
    workload = WorkloadSpec(
        num_requests=spec.num_requests,
        seed=seed,
        mean_prompt=spec.mean_input,
        max_prompt=max(4 * spec.mean_input, 4),
        mean_output=spec.mean_output,
        max_output=max(4 * spec.mean_output, 4),
    )
    return [
        replace(request, prompt_token_ids=prefix + request.prompt_token_ids)
        for request in make_workload(workload, ordinary)
    ]


def run_requests(engine: Engine, requests: list[WorkloadRequest]) -> PrefixRun:
    """Submit everything to an engine that has nothing cached, then step to the end."""
    engine.cache.drop()
    first_seconds: dict[str, float] = {}
    num_output_tokens = 0
    started_seconds = time.perf_counter()
    live = [
        engine.submit(str(number), request.prompt_token_ids, request.params)
        for number, request in enumerate(requests)
    ]
    while engine.has_work:
        deltas = engine.step()
        now_seconds = time.perf_counter()
        for delta in deltas:
            if delta.finish_reason is FinishReason.ERROR:
                raise RequestFailedError(f"request {delta.request_id} failed: {delta.error}")
            num_output_tokens += len(delta.token_ids)
            first_seconds.setdefault(delta.request_id, now_seconds - started_seconds)
    run_seconds = time.perf_counter() - started_seconds
    num_prompt_tokens = sum(len(request.prompt_token_ids) for request in requests)
    return PrefixRun(
        run_seconds=run_seconds,
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        hit_rate=sum(request.num_cached_tokens or 0 for request in live) / num_prompt_tokens,
        ttft_ms=[1e3 * seconds for seconds in first_seconds.values()],
    )
