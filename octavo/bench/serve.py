"""Load on a running server: one run of a workload, and the search for the highest rate within limits."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from octavo.bench.load.client import run_load
from octavo.bench.load.metrics import METRIC_WORDS, Limit, measure_run, pools
from octavo.bench.load.schedule import Arrivals
from octavo.bench.load.workload_file import draw_requests
from octavo.bench.serve_spec import ServeSpec
from octavo.bench.statistics.order import num_needed
from octavo.bench.statistics.ratio import quantile
from octavo.bench.targets.target import BenchRequest, RunRecord, Target, TargetDescription
from octavo.bench.workload import WorkloadSpec
from octavo.build import TextParts
from octavo.errors import ConfigError

# Between neighbouring rates of the search: 1.05 finds the highest rate within 5 %.
_PRECISION = 1.05
_MAX_DOUBLINGS = 16


def make_requests(spec: ServeSpec, text: TextParts, *, seed: int | None = None) -> list[BenchRequest]:
    """Exponential lengths around the two means, cut where the model's context ends."""
    longest = text.description.spec.max_positions // 2
    drawn = WorkloadSpec(
        num_requests=spec.num_prompts,
        seed=spec.seed if seed is None else seed,
        mean_prompt=spec.random_input_len,
        min_prompt=1,
        max_prompt=min(8 * spec.random_input_len, longest),
        mean_output=spec.random_output_len,
        min_output=1,
        max_output=min(8 * spec.random_output_len, longest),
    )
    return draw_requests(drawn, text, prefix=f"{drawn.seed}/")


async def run_serve(
    target: Target,
    requests: Sequence[BenchRequest],
    due_seconds: Sequence[float],
    spec: ServeSpec,
    *,
    workload: str,
    on_end: Callable[[], None] | None = None,
) -> tuple[TargetDescription, RunRecord]:
    """One run, after one request to warm up that does not count.

    Raises:
        TargetError: the target cannot be reached.
    """
    try:
        description = await target.start()
        await _warm_up(target, requests[0], spec)
        run = await run_load(
            target,
            requests,
            due_seconds,
            workload=workload,
            max_concurrency=spec.max_concurrency,
            timeout_seconds=spec.timeout,
            on_end=on_end,
        )
        return description, run
    finally:
        await target.stop()


async def _warm_up(target: Target, request: BenchRequest, spec: ServeSpec) -> None:
    """A prompt that begins differently, so that the first request finds nothing cached."""
    warm = BenchRequest(
        request_id="warm-up",
        prompt_token_ids=list(reversed(request.prompt_token_ids)),
        prompt_text=request.prompt_text[::-1],
        num_output_tokens=2,
    )
    await run_load(target, [warm], [0.0], workload="warm-up", timeout_seconds=spec.timeout)


def serve_report(
    description: TargetDescription, run: RunRecord, arrivals: str, spec: ServeSpec, limits: Sequence[Limit]
) -> dict[str, Any]:
    """Everything, as one results file, with each request's own times."""
    start_ns = run.started_ns
    return {
        "benchmark": "serve",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": asdict(description),
        "arrivals": arrivals,
        "spec": asdict(spec),
        "limits": [asdict(limit) for limit in limits],
        "metrics": measure_run(run, limits),
        "requests": [
            {
                "request_id": one.request_id,
                "num_prompt_tokens": one.num_prompt_tokens,
                "num_output_tokens": one.num_output_tokens,
                "scheduled_ms": (one.scheduled_ns - start_ns) / 1e6,
                "sent_ms": None if one.sent_ns is None else (one.sent_ns - start_ns) / 1e6,
                "chunk_ms": [round((stamp - start_ns) / 1e6, 3) for stamp in one.chunk_ns],
                "chunk_tokens": one.chunk_tokens,
                "error": one.error,
            }
            for one in run.requests
        ],
    }


@dataclass(frozen=True, slots=True)
class Objective:
    """One limit on a percentile: `ttft_p99=2000ms`."""

    metric: str
    level: float
    milliseconds: float


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """`ttft_p99=2000ms,tpot_p99=100ms`.

    Raises:
        ConfigError: a part is not of that form.
    """
    found = []
    for part in text.split(","):
        name, _, number = part.partition("=")
        metric, _, level = name.partition("_p")
        try:
            percent, milliseconds = float(level), float(number.removesuffix("ms"))
        except ValueError:
            percent, milliseconds = 0.0, 0.0
        if metric not in METRIC_WORDS or not 0 < percent < 100 or not milliseconds > 0:
            raise ConfigError(f"--slo {part!r}: write for example ttft_p99=2000ms,tpot_p99=100ms")
        found.append(Objective(METRIC_WORDS[metric], percent / 100, milliseconds))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """One rate that was tried. `readings` are in the order of the objectives."""

    rate: float
    readings: tuple[float, ...]
    num_errors: int
    is_client_bound: bool
    is_within: bool


def judge_rate(run: RunRecord, rate: float, objectives: Sequence[Objective]) -> RatePoint:
    """Whether every percentile is within its limit and nothing failed."""
    numbers, values = measure_run(run), pools(run)
    readings = tuple(
        quantile(values[one.metric], one.level) if values.get(one.metric) else math.inf for one in objectives
    )
    within = all(read <= one.milliseconds for read, one in zip(readings, objectives, strict=True))
    return RatePoint(
        rate=rate,
        readings=readings,
        num_errors=numbers["num_errors"],
        is_client_bound=bool(numbers.get("is_client_bound")),
        is_within=within and numbers["num_errors"] == 0,
    )


async def find_max_rate(
    try_rate: Callable[[float], Awaitable[RatePoint]], *, first_rate: float
) -> tuple[float | None, list[RatePoint]]:
    """The highest rate within the objectives, to 5 %, and all that were tried: doubling, then halving the
    interval. None where even a small fraction of the first rate is too much."""
    points: list[RatePoint] = []

    async def is_within(rate: float) -> bool:
        points.append(await try_rate(rate))
        return points[-1].is_within

    rate = first_rate
    low, high = 0.0, math.inf
    for _ in range(_MAX_DOUBLINGS):
        if await is_within(rate):
            low, rate = rate, rate * 2
        else:
            high, rate = rate, rate / 2
        if low and math.isfinite(high):
            break
    while low and math.isfinite(high) and high / low > _PRECISION:
        middle = math.sqrt(low * high)
        if await is_within(middle):
            low = middle
        else:
            high = middle
    return (low or None), points


def fewest_requests(objectives: Sequence[Objective]) -> int:
    """Without so many a percentile is hardly more than the largest value."""
    return max(num_needed(one.level) for one in objectives)


def arrivals_of(spec_rate: float, burstiness: float, *, is_rescaled: bool = False) -> Arrivals:
    """As the command line says it. Raises ConfigError: a number is out of range."""
    return Arrivals(rate=spec_rate, burstiness=burstiness, is_rescaled=is_rescaled)
