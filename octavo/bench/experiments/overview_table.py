"""The columns of the overview's transformers-against-vLLM table, each defined, and none of its values."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.panels import forest, metric_bars, trade_off
from octavo.bench.experiments.policies import ONE_BY_ONE
from octavo.bench.experiments.requests import anyscale_lengths, make_load, scale_note
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import cell, compare_targets

_MANY, _ONE = "many at once", "one at a time"
_CAP = 512


class OverviewTable:
    name = "table"
    title = "Throughput, time per token and memory of each engine"
    hypothesis = (
        "Throughput of many requests and speed of one stream are different things: batching raises the first "
        "and leaves the second to the kernels. The overview's latency column is only the reciprocal of its "
        "throughput, so both are measured here."
    )
    design = (
        "Mixed requests all at once for throughput; the same lengths one at a time for a single stream. "
        "Memory is the process's resident peak; the KV pool is told apart."
    )
    needs_octavo = False

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        lengths = anyscale_lengths(setup, cap=_CAP, prompt=(128, 384))
        vocabulary, extent = setup.vocabulary, setup.extent

        def many(seed: int) -> list[Any]:
            return make_load(vocabulary, lengths, num_requests=extent.num_arrivals, seed=seed)

        def one(seed: int) -> list[Any]:
            return make_load(vocabulary, lengths, num_requests=max(extent.num_requests // 4, 3), seed=seed)

        return (
            lambda results: [
                Condition(name=_MANY, load=many),
                Condition(name=_ONE, load=one, policy=ONE_BY_ONE),
            ],
        )

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        comparisons = compare_targets(results, ("tok_out_s",), (_MANY,))
        comparisons += compare_targets(results, ("tpot_ms_p50", "ttft_ms_p50"), (_ONE,))
        note = scale_note(setup)
        panels = [
            metric_bars(
                results,
                "tok_out_s",
                name="throughput",
                title="Output tokens per second",
                conditions=(_MANY, _ONE),
                note=note,
            ),
            metric_bars(
                results,
                "tpot_ms_p50",
                name="tpot",
                title="Time per output token",
                conditions=(_MANY, _ONE),
                note=note,
            ),
            trade_off(
                results,
                ("tpot_ms_p50", [_ONE]),
                ("tok_out_s", [_MANY]),
                name="trade-off",
                title="Throughput of many against the speed of one stream",
            ),
        ]
        if comparisons:
            panels.append(
                forest(comparisons, name="ratios", title="Ratios", subtitle="95 % intervals over blocks")
            )
        return Findings(
            predictions=_predict(results),
            panels=panels,
            comparisons=comparisons,
            tables=[_table(results)],
            threats=["A target in this process shares its resident memory with the client."],
        )


def _predict(results: Results) -> list[Prediction]:
    measured = []
    for target in results.live_targets:
        rate = results.values(_MANY, target, "tok_out_s")
        single = results.values(_ONE, target, "tpot_ms_p50")
        if rate and single:
            reciprocal = 1000 / statistics.fmean(rate)
            measured.append(f"{target}: {reciprocal:.1f} against {statistics.fmean(single):.1f} ms")
    return [
        Prediction(
            quantity="1000 / throughput against the time per token of one stream",
            predicted="differ: a stream does not speed up with the batch",
            claimed="5.5 and 2.1 ms/token beside 180 and 480 tokens/s: exactly the reciprocals",
            source="the overview's table, LLaMA-7B on A10",
            measured="; ".join(measured) or "–",
            remark="its 11.2 GB are less than the fp16 weights' 13.5 GB; its values are not repeated",
        ),
        Prediction(
            quantity="vLLM over transformers, throughput",
            claimed="2.67× in the table; 14 to 24× in the same text",
            source="the overview; vLLM post, 2023",
            measured="see the ratios" if {"vllm", "transformers"} <= set(results.live_targets) else "–",
            remark="the two claims contradict each other",
        ),
    ]


def _table(results: Results) -> Table:
    rows = []
    for target in results.live_targets:
        peak = max((run.stats.get("peak_rss_bytes", 0.0) for run in results.of(_MANY, target)), default=0.0)
        rate = results.values(_MANY, target, "tok_out_s")
        rows.append(
            [
                target,
                cell(rate),
                f"{1000 / statistics.fmean(rate):.2f}" if rate else "–",
                cell(results.values(_ONE, target, "tpot_ms_p50"), 2),
                cell(results.values(_ONE, target, "ttft_ms_p50"), 1),
                cell(results.values(_MANY, target, "e2e_ms_p50"), 0),
                f"{peak / 2**20:,.0f}" if peak else "unknown",
            ]
        )
    return Table(
        title="Each engine",
        header=(
            *("", "output tok/s", "1000 / that", "ms/token, one stream", "TTFT, one stream, ms"),
            *("median latency, ms", "resident peak, MiB"),
        ),
        rows=rows,
        notes=(
            "Mean over blocks, smallest and largest in brackets. Output tok/s and median latency with all at "
            "once; p50 is the median, no tail.",
        ),
    )


class SingleUser:
    name = "single-user"
    title = "One user at a time"
    hypothesis = (
        "With one stream there is nothing to batch: time to first token follows the prompt's length, time "
        "per token the weights' bytes over the memory's speed. A peer with faster kernels wins here."
    )
    design = "Requests one after another: prompts of 32 and of 512 tokens, outputs of 64, times the scale."
    needs_octavo = False

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        return (lambda results: [_single(setup, prompt) for prompt in _SINGLE_PROMPTS],)

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        metrics = ("ttft_ms_p50", "tpot_ms_p50")
        comparisons = compare_targets(results, metrics)
        panels = [
            metric_bars(results, metric, name=metric, title=title, note=scale_note(setup))
            for metric, title in zip(metrics, ("Time to first token", "Time per output token"), strict=True)
        ]
        if comparisons:
            panels.append(
                forest(comparisons, name="ratios", title="Ratios", subtitle="95 % intervals over blocks")
            )
        rows = [
            [
                target,
                name,
                *(cell(results.values(name, target, metric), 2) for metric in (*metrics, "tok_out_s")),
            ]
            for target in results.live_targets
            for name in results.conditions
        ]
        return Findings(
            panels=panels,
            comparisons=comparisons,
            predictions=[_predict_single(results)],
            tables=[
                Table(
                    title="One user at a time",
                    header=("target", "", "median TTFT, ms", "median TPOT, ms", "output tok/s"),
                    rows=rows,
                )
            ],
        )


_SINGLE_PROMPTS = (32, 512)
_SINGLE_OUTPUT = 64


def _single_name(prompt: int) -> str:
    return f"prompt of {prompt}"


def _single(setup: Setup, prompt: int) -> Condition:
    scale = setup.extent.length_scale
    # Short prompts stay whole: what little they take is the point.
    lengths = max(8, round(prompt * scale)), max(8, round(_SINGLE_OUTPUT * scale))

    def draw(source: random.Random) -> tuple[int, int]:
        return lengths

    def load(seed: int) -> list[Any]:
        num_requests = max(setup.extent.num_requests // 4, 4)
        return make_load(setup.vocabulary, draw, num_requests=num_requests, seed=seed)

    return Condition(name=_single_name(prompt), load=load, policy=ONE_BY_ONE)


def _predict_single(results: Results) -> Prediction:
    measured = []
    for target in results.live_targets:
        short, long = (results.values(_single_name(one), target, "ttft_ms_p50") for one in _SINGLE_PROMPTS)
        if short and long:
            measured.append(f"{target}: {statistics.fmean(long) / statistics.fmean(short):.1f}×")
    return Prediction(
        quantity="TTFT of the long prompt over that of the short one",
        predicted="up to 16×, less where short prompts do not fill the machine",
        measured="; ".join(measured) or "–",
    )
