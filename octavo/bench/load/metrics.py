"""One run in numbers, under names that mean one thing; what other tools call them stands beside them.

Latencies count from the scheduled arrival. Definitions and aliases: docs/benchmarking.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.bench.statistics.description import describe
from octavo.bench.statistics.ratio import quantile
from octavo.bench.targets.target import RequestRecord, RunRecord
from octavo.errors import ConfigError

# A client whose sends lag by more than this share of the median TTFT has measured itself.
LARGEST_LAG_SHARE = 0.05
# The share of the output tokens that comes while the load ramps up, and while it drains.
_RAMP_SHARE = 0.1

# Our name -> what vLLM's and other tools' reports call it.
ALIASES = {
    "ttft_ms": "TTFT",
    "tpot_ms": "TPOT (vLLM); ITL (guidellm, aiperf)",
    "chunk_gap_ms": "ITL (vLLM); ICL (aiperf)",
    "e2e_ms": "E2EL (vLLM); request latency",
    "norm_latency_ms_per_token": "TPOT (guidellm); normalised latency (Orca)",
    "send_lag_ms": "client queue time",
}
# Of `vllm bench serve`'s --percentile-metrics.
METRIC_WORDS = {"ttft": "ttft_ms", "tpot": "tpot_ms", "itl": "chunk_gap_ms", "e2el": "e2e_ms"}


@dataclass(frozen=True, slots=True)
class Limit:
    """One service-level objective: a request's `metric` may be at most `milliseconds`."""

    metric: str
    milliseconds: float


def parse_limits(words: Sequence[str]) -> tuple[Limit, ...]:
    """`ttft:2000 tpot:100` (milliseconds), as `vllm bench serve --goodput` takes them.

    Raises:
        ConfigError: a metric is unknown, or a number is none.
    """
    limits = []
    for word in words:
        name, _, number = word.partition(":")
        try:
            milliseconds = float(number)
        except ValueError:
            milliseconds = 0.0
        if name not in ("ttft", "tpot", "e2el") or not milliseconds > 0:
            raise ConfigError(
                f"--goodput {word}: write ttft, tpot or e2el and milliseconds, for example ttft:2000"
            )
        limits.append(Limit(METRIC_WORDS[name], milliseconds))
    return tuple(limits)


def request_metrics(record: RequestRecord) -> dict[str, float]:
    """Of one request that is whole; `tpot_ms` is absent of a single token."""
    first_ns, last_ns, count = record.chunk_ns[0], record.chunk_ns[-1], record.num_output_tokens
    sent_ns = record.scheduled_ns if record.sent_ns is None else record.sent_ns
    e2e_ms = (last_ns - record.scheduled_ns) / 1e6
    metrics = {
        "ttft_ms": (first_ns - record.scheduled_ns) / 1e6,
        "ttft_sent_ms": (first_ns - sent_ns) / 1e6,
        "e2e_ms": e2e_ms,
        "norm_latency_ms_per_token": e2e_ms / count,
        "send_lag_ms": (sent_ns - record.scheduled_ns) / 1e6,
    }
    if count > 1:
        metrics["tpot_ms"] = (last_ns - first_ns) / 1e6 / (count - 1)
    return metrics


def is_whole(record: RequestRecord) -> bool:
    """Ended without an error, with exactly the tokens that were asked for."""
    return record.error is None and record.num_output_tokens == record.num_requested_tokens > 0


def measure_run(run: RunRecord, limits: Sequence[Limit] = ()) -> dict[str, Any]:
    """Throughput over the whole run and its steady window, and each latency described.

    Only whole requests count; the others are counted as errors, and against goodput.
    """
    whole = [one for one in run.requests if is_whole(one)]
    errors = sorted({one.error or _wrong_length(one) for one in run.requests if not is_whole(one)})
    numbers: dict[str, Any] = {
        "num_requests": len(run.requests),
        "num_errors": len(run.requests) - len(whole),
        "errors": errors[:5],
    }
    if not whole:
        return numbers
    first_due_ns = min(one.scheduled_ns for one in run.requests)
    seconds = (max(one.chunk_ns[-1] for one in whole) - first_due_ns) / 1e9
    num_output = sum(one.num_output_tokens for one in whole)
    num_prompt = sum(one.num_prompt_tokens for one in whole)
    by_request = [request_metrics(one) for one in whole]
    numbers |= {
        "run_s": seconds,
        "num_prompt_tokens": num_prompt,
        "num_output_tokens": num_output,
        "tok_out_s": num_output / seconds,
        "tok_prompt_s": num_prompt / seconds,
        "tok_total_s": (num_prompt + num_output) / seconds,
        "tok_out_steady_s": steady_rate(whole),
        "req_s": len(whole) / seconds,
        "goodput_req_s": sum(_is_good(one, limits) for one in by_request) / seconds if limits else None,
        "is_client_bound": is_client_bound(
            [one["send_lag_ms"] for one in by_request], [one["ttft_ms"] for one in by_request]
        ),
        "tokens_per_chunk": num_output / sum(len(one.chunk_ns) for one in whole),
    }
    return numbers | {name: describe(values).as_json() for name, values in _pools(whole, by_request).items()}


def pools(run: RunRecord) -> dict[str, list[float]]:
    """Metric -> its values over the whole requests; `chunk_gap_ms` pools all gaps of all requests, so
    that long answers weigh more."""
    whole = [one for one in run.requests if is_whole(one)]
    return _pools(whole, [request_metrics(one) for one in whole])


def steady_rate(records: Sequence[RequestRecord]) -> float | None:
    """Output tokens a second with ramp and drain left out: of the middle 80 % of the tokens."""
    arrivals = sorted(pair for one in records for pair in zip(one.chunk_ns, one.chunk_tokens, strict=True))
    total, seen, inside = sum(count for _, count in arrivals), 0, 0
    first_ns = last_ns = None
    for arrival_ns, count in arrivals:
        seen += count
        if first_ns is None:
            first_ns = arrival_ns if seen >= _RAMP_SHARE * total else None
        elif seen <= (1 - _RAMP_SHARE) * total:
            last_ns, inside = arrival_ns, inside + count
    if first_ns is None or last_ns is None or last_ns <= first_ns:
        return None
    return inside / (last_ns - first_ns) * 1e9


def is_client_bound(send_lags_ms: Sequence[float], ttfts_ms: Sequence[float]) -> bool:
    """Whether the client sent so late that it measured itself."""
    if not send_lags_ms:
        return False
    return quantile(send_lags_ms, 0.99) > LARGEST_LAG_SHARE * quantile(ttfts_ms, 0.5)


def _pools(
    whole: Sequence[RequestRecord], by_request: Sequence[Mapping[str, float]]
) -> dict[str, list[float]]:
    names = ("ttft_ms", "ttft_sent_ms", "tpot_ms", "e2e_ms", "norm_latency_ms_per_token", "send_lag_ms")
    found = {name: [one[name] for one in by_request if name in one] for name in names}
    found["chunk_gap_ms"] = [
        (later - earlier) / 1e6
        for one in whole
        for earlier, later in zip(one.chunk_ns, one.chunk_ns[1:], strict=False)
    ]
    return {name: values for name, values in found.items() if values}


def _is_good(metrics: Mapping[str, float], limits: Sequence[Limit]) -> bool:
    """A request of one token has no TPOT, and so cannot miss one."""
    return all(metrics.get(limit.metric, 0.0) <= limit.milliseconds for limit in limits)


def _wrong_length(record: RequestRecord) -> str:
    return f"{record.num_output_tokens} tokens came where {record.num_requested_tokens} were asked for"
