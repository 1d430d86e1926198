"""Lengths and arrivals of public traces (Azure 2023, Mooncake), drawn from their quantiles."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from octavo.bench.experiments.capacity import burst_name, capacity
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.lengths import GAP_SHAPES, TRACES, data_file, quantile_length, trace_table
from octavo.bench.experiments.panels import kv_timeline, latency_by_arrival, latency_ecdf
from octavo.bench.experiments.requests import DrawLengths, make_load
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import compare_targets
from octavo.bench.statistics import quantile

_TITLES = {
    "azure2023_conv": "Azure 2023 conversation",
    "azure2023_code": "Azure 2023 code",
    "mooncake_conversation": "Mooncake conversation",
}
_LOAD = 0.7
# A request of the trace's 99th percentile takes at most this share of the context.
_CONTEXT_SHARE = 0.5


class Trace:
    name = "trace"
    title = "Lengths and arrivals of public traces"
    hypothesis = (
        "Real traffic is burstier than Poisson and its lengths are not exponential: long prompts with short "
        "answers (code) load prefill, bursts fill the queue, and latency has a longer tail at the same load."
    )
    design = (
        "Prompt and output lengths drawn independently from each trace's 101 quantiles, scaled by the "
        "size's own scale, or further so that the p99 fits in half of the context; gamma-distributed gaps of "
        "the trace's shape, at 0.7 of the capacity measured with all at once."
    )
    needs_octavo = False

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        def probe(results: Results) -> list[Condition]:
            return [_condition(setup, trace, None) for trace in TRACES]

        def measure(results: Results) -> list[Condition]:
            return [
                _condition(setup, trace, _LOAD * capacity(results, burst_name(_TITLES[trace])))
                for trace in TRACES
            ]

        return probe, measure

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {"scales": {trace: _scale(setup, trace) for trace in TRACES}}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        names = list(_TITLES.values())
        panels: list[dict[str, Any]] = [
            latency_ecdf(results, "e2e_ms", name="e2e", title="End-to-end latency", conditions=names),
            latency_ecdf(results, "ttft_ms", name="ttft", title="Time to first token", conditions=names),
            latency_by_arrival(
                results, name="arrivals", title="Latency request by request", conditions=names
            ),
        ]
        for target in results.live_targets:
            for trace, title in _TITLES.items():
                panel = kv_timeline(
                    results,
                    name=f"kv-{trace}-{target}",
                    title=f"KV blocks over time, {title}",
                    condition=title,
                    target=target,
                )
                panels += [panel] if panel else []
        return Findings(
            predictions=[one for trace in TRACES for one in _predict(setup, results, trace)],
            panels=panels,
            comparisons=compare_targets(results, ("e2e_ms_p50", "ttft_ms_p50"), names),
            tables=[_about_traces(results)],
            threats=[
                "Only lengths and gaps are the traces': prompts are random tokens, and nothing is shared "
                "between them, though 36.6 % of Mooncake's blocks could be.",
                "Between a trace's 99th percentile and its longest request the table is a straight line, "
                "which draws the longest tails too heavy: the code trace's responses have a mean of 34 and "
                "not of 28.",
                "Mooncake's stamps tick every 3 s, so its gaps say nothing; Poisson arrivals stand in. Of "
                "the code trace the shape inside its busy stretches is used, without its idle gaps.",
                "Derived from the Azure LLM inference trace 2023 (CC-BY 4.0; Patel et al., Splitwise, ISCA "
                "2024) and the Mooncake trace (Apache-2.0; Qin et al., FAST 2025), reduced to quantiles.",
            ],
        )


def _scale(setup: Setup, trace: str) -> float:
    longest = trace_table(trace, "prompt")[99] + trace_table(trace, "response")[99]
    return min(setup.extent.length_scale, _CONTEXT_SHARE * setup.vocabulary.max_model_len / longest)


def _lengths(setup: Setup, trace: str) -> DrawLengths:
    prompts, responses = (trace_table(trace, what) for what in ("prompt", "response"))
    scale = _scale(setup, trace)

    def draw(source: random.Random) -> tuple[int, int]:
        prompt, response = (
            max(1, round(scale * quantile_length(source, table))) for table in (prompts, responses)
        )
        return prompt, response

    return draw


def _condition(setup: Setup, trace: str, rate: float | None) -> Condition:
    load = partial(
        make_load,
        setup.vocabulary,
        _lengths(setup, trace),
        num_requests=setup.extent.num_requests if rate is None else setup.extent.num_arrivals,
        rate=rate,
        shape=GAP_SHAPES[trace],
    )
    title = _TITLES[trace]
    return Condition(name=burst_name(title) if rate is None else title, load=lambda seed: load(seed=seed))


def _predict(setup: Setup, results: Results, trace: str) -> list[Prediction]:
    facts = data_file("length_and_arrival_fits.json")[trace]
    scale = _scale(setup, trace)
    runs = [run for target in results.live_targets[:1] for run in results.of(_TITLES[trace], target)]
    rows = []
    for what, name in (("prompt", "num_prompt_tokens"), ("response", "num_output_tokens")):
        drawn = [getattr(one, name) for run in runs for one in run.requests]
        if drawn:
            rows.append(
                Prediction(
                    quantity=f"{_TITLES[trace]}: {what} tokens, mean and median",
                    predicted=f"{facts[what]['mean'] * scale:.0f}, {facts[what]['p50'] * scale:.0f}",
                    claimed=f"{facts[what]['mean']:.0f}, {facts[what]['p50']:.0f} unscaled",
                    source="the trace",
                    measured=f"{statistics.fmean(drawn):.0f}, {quantile(drawn, 0.5):.0f} (n = {len(drawn)})",
                    remark=f"scaled by {scale:.3g}",
                )
            )
    return rows


def _about_traces(results: Results) -> Table:
    rows = []
    for target in results.live_targets:
        for trace, title in _TITLES.items():
            runs = results.of(title, target)
            gaps = [
                later.due_ms - earlier.due_ms
                for run in runs
                for earlier, later in zip(run.requests, run.requests[1:], strict=False)
            ]
            latencies = [one for block in results.request_values(title, target, "e2e_ms") for one in block]
            if len(gaps) < 2 or not latencies:
                continue
            variation = statistics.stdev(gaps) / statistics.fmean(gaps)
            rows.append(
                [
                    target,
                    title,
                    f"{1000 / statistics.fmean(gaps):.2f}",
                    f"{variation:.2f}",
                    f"{GAP_SHAPES[trace] ** -0.5:.2f}",
                    f"{quantile(latencies, 0.5):,.0f}",
                    f"{max(latencies) / quantile(latencies, 0.5):.1f}×",
                ]
            )
    return Table(
        title="Arrivals and latency",
        header=(
            "target",
            "",
            "req/s",
            "CV of gaps",
            "CV asked for",
            "median latency, ms",
            "slowest over median",
        ),
        rows=rows,
        notes=("Of small samples the CV of gamma gaps is biased low.",),
    )
