"""Numbers of one run and of its requests, under names that mean one thing. Pure Python.

Latencies count from the scheduled arrival; throughput is told for output, prompt and both apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.bench.load.metrics import is_whole, request_metrics, steady_rate
from octavo.bench.statistics import quantile
from octavo.bench.targets.target import RequestRecord, RunRecord, TargetStep


@dataclass(frozen=True, slots=True)
class Metric:
    """Attributes:
    about: the definition, in one line.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    about: str


METRICS = {
    one.name: one
    for one in (
        Metric("tok_out_s", "output tokens/s", "tok/s", True, "output tokens / (first due to last end)"),
        Metric("tok_total_s", "prompt + output tokens/s", "tok/s", True, "both kinds / the same time"),
        Metric("tok_prompt_s", "prompt tokens/s", "tok/s", True, "prompt tokens / the same time"),
        Metric(
            "tok_out_steady_s",
            "output tokens/s, steady",
            "tok/s",
            True,
            "the middle 80 % of the output tokens / the time in which they came",
        ),
        Metric("req_s", "requests/s", "req/s", True, "finished requests / the same time"),
        Metric("e2e_ms_mean", "end-to-end, mean", "ms", False, "last token - scheduled arrival"),
        Metric("e2e_ms_p50", "end-to-end, median", "ms", False, "last token - scheduled arrival"),
        Metric("e2e_ms_p95", "end-to-end, p95", "ms", False, "last token - scheduled arrival"),
        Metric("ttft_ms_p50", "time to first token, median", "ms", False, "first token - scheduled arrival"),
        Metric("ttft_ms_p99", "time to first token, p99", "ms", False, "first token - scheduled arrival"),
        Metric("tpot_ms_p50", "time per output token, median", "ms", False, "(last - first token) / (n - 1)"),
        Metric("tpot_ms_p99", "time per output token, p99", "ms", False, "(last - first token) / (n - 1)"),
        Metric(
            "norm_latency_ms_per_token",
            "normalised latency, mean",
            "ms/token",
            False,
            "end-to-end / output tokens, mean of the requests",
        ),
        Metric("batch_mean", "sequences running", "", True, "mean over time of the steps"),
        Metric("kv_util", "KV blocks used", "", True, "used / all blocks, mean over time of the steps"),
        Metric("run_s", "duration", "s", False, "first due to last end"),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestTimes:
    """One finished request in milliseconds.

    Attributes:
        due_ms: when it was due, from the start of its run.
        first_ms, last_ms, end_ms: its first and last token and its answer's end, from the start of its run.
            They differ where a static batch holds an answer back until its longest row has ended.
        tpot_ms: absent for a single token.
    """

    request_id: str
    num_prompt_tokens: int
    num_output_tokens: int
    due_ms: float
    first_ms: float
    last_ms: float
    end_ms: float
    ttft_ms: float
    tpot_ms: float | None
    e2e_ms: float
    norm_latency_ms_per_token: float
    send_lag_ms: float


def time_requests(run: RunRecord) -> list[RequestTimes]:
    """The requests that finished with all of their tokens, in order of their scheduled arrival."""
    start_ns = min((one.scheduled_ns for one in run.requests), default=0)
    done = [one for one in run.requests if is_whole(one)]
    return [_time_one(one, start_ns) for one in sorted(done, key=lambda one: one.scheduled_ns)]


def _time_one(record: RequestRecord, start_ns: int) -> RequestTimes:
    metrics = request_metrics(record)
    last_ns = record.chunk_ns[-1]
    end_ns = max(record.end_ns or 0, last_ns)
    held_ms = (end_ns - last_ns) / 1e6  # by a static batch, until its longest row had ended
    count = record.num_output_tokens
    tpot_ms = metrics.get("tpot_ms")
    return RequestTimes(
        request_id=record.request_id,
        num_prompt_tokens=record.num_prompt_tokens,
        num_output_tokens=count,
        due_ms=(record.scheduled_ns - start_ns) / 1e6,
        first_ms=(record.chunk_ns[0] - start_ns) / 1e6,
        last_ms=(last_ns - start_ns) / 1e6,
        end_ms=(end_ns - start_ns) / 1e6,
        ttft_ms=metrics["ttft_ms"],
        tpot_ms=None if tpot_ms is None else tpot_ms + held_ms / (count - 1),
        e2e_ms=metrics["e2e_ms"] + held_ms,
        norm_latency_ms_per_token=metrics["norm_latency_ms_per_token"] + held_ms / count,
        send_lag_ms=metrics["send_lag_ms"],
    )


def measure_run(run: RunRecord) -> dict[str, float]:
    """Every metric that this run has; percentiles of one run are plain quantiles, and its n says how far
    they reach. Empty where no request finished."""
    times = time_requests(run)
    if not times:
        return {}
    seconds = max(one.end_ms for one in times) / 1e3
    num_output = sum(one.num_output_tokens for one in times)
    num_prompt = sum(one.num_prompt_tokens for one in times)
    found = {
        "run_s": seconds,
        "tok_out_s": num_output / seconds,
        "tok_prompt_s": num_prompt / seconds,
        "tok_total_s": (num_output + num_prompt) / seconds,
        "req_s": len(times) / seconds,
        "e2e_ms_mean": statistics.fmean(one.e2e_ms for one in times),
        "e2e_ms_p50": quantile([one.e2e_ms for one in times], 0.5),
        "e2e_ms_p95": quantile([one.e2e_ms for one in times], 0.95),
        "ttft_ms_p50": quantile([one.ttft_ms for one in times], 0.5),
        "ttft_ms_p99": quantile([one.ttft_ms for one in times], 0.99),
        "norm_latency_ms_per_token": statistics.fmean(one.norm_latency_ms_per_token for one in times),
    }
    tpot = [one.tpot_ms for one in times if one.tpot_ms is not None]
    if tpot:
        found |= {"tpot_ms_p50": quantile(tpot, 0.5), "tpot_ms_p99": quantile(tpot, 0.99)}
    steady = steady_rate([one for one in run.requests if is_whole(one)])
    if steady is not None:
        found["tok_out_steady_s"] = steady
    return found | _over_steps(run.steps)


def _over_steps(steps: Sequence[TargetStep]) -> dict[str, float]:
    """Means over the time that each step took."""
    seconds = sum(step.end_ns - step.start_ns for step in steps)
    if not seconds:
        return {}
    running = utilised = 0.0
    for step in steps:
        weight = (step.end_ns - step.start_ns) / seconds
        num_blocks = step.blocks_used + step.blocks_cached + step.blocks_free
        running += weight * step.num_running
        utilised += weight * step.blocks_used / max(num_blocks, 1)
    return {"batch_mean": running, "kv_util": utilised}
