"""Normalised latency against request rate, and the knee at a limit: the vLLM paper's figure 12."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from octavo.bench import paper
from octavo.bench.experiments.capacity import Knee, burst_name, capacity, find_knee
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.panels import latency_ecdf, series_colour, target_colour, trade_off
from octavo.bench.experiments.requests import DrawLengths, make_load, scale_note
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import cell, compare_targets
from octavo.bench.statistics.interval import estimate_mean

_WORKLOADS = {"ShareGPT": "ShareGPT-like", "Alpaca": "Alpaca-like"}
_LOADS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2)
_FEW_LOADS = (0.3, 0.7, 1.0, 1.2)
# A request may take so many times as long a token as at the lowest rate.
_LIMIT_FACTOR = 4.0
_METRIC = "norm_latency_ms_per_token"


class RateCurve:
    name = "rate-curve"
    title = "Normalised latency against request rate"
    hypothesis = (
        "Latency stays flat until the engine cannot keep up and then rises steeply; what batches more "
        "requests in the same memory has its knee at a higher rate."
    )
    design = (
        "Exponential lengths of ShareGPT's and Alpaca's printed means, Poisson arrivals at 0.3 to 1.2 of "
        "the capacity measured with all at once. Normalised latency is end-to-end latency over output "
        "tokens, mean of the requests. The knee is where it passes four times its value at the lowest rate."
    )
    needs_octavo = False

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        def probe(results: Results) -> list[Condition]:
            return [_condition(setup, name, None, burst_name(name)) for name in _WORKLOADS.values()]

        def measure(results: Results) -> list[Condition]:
            return [
                _condition(setup, name, load * capacity(results, burst_name(name)), _name(name, load))
                for name in _WORKLOADS.values()
                for load in _loads(setup)
            ]

        return probe, measure

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        panels = [_panel(setup, results, name) for name in _WORKLOADS.values()]
        panels.append(
            latency_ecdf(
                results,
                _METRIC,
                name="distribution",
                title="Normalised latency at 0.7 and at full capacity, ShareGPT-like",
                conditions=[_name("ShareGPT-like", load) for load in (0.7, 1.0)],
                unit="ms/token",
            )
        )
        panels += [_trade_off(setup, results, workload) for workload in _WORKLOADS.values()]
        return Findings(
            predictions=[_predict(results, data_set) for data_set in _WORKLOADS],
            panels=panels,
            comparisons=compare_targets(
                results, (_METRIC,), [_name(name, 0.7) for name in _WORKLOADS.values()]
            ),
            tables=[_table(results)],
            threats=[
                "A run of few requests ends before a queue above capacity has grown: knees of small sizes "
                "lie too far to the right.",
                "The limit is a multiple of this machine's own latency: the paper reads its knees off a "
                "plot.",
            ],
        )


def _loads(setup: Setup) -> tuple[float, ...]:
    """Shares of capacity."""
    return _LOADS if setup.extent.has_all_levels else _FEW_LOADS


def _name(workload: str, load: float) -> str:
    return f"{workload}, {load:g} of capacity"


def _lengths(setup: Setup, data_set: str) -> DrawLengths:
    means = [max(1.0, mean * setup.extent.length_scale) for mean in paper.mean_tokens(data_set)]

    def draw(source: random.Random) -> tuple[int, int]:
        prompt, output = (max(1, round(source.expovariate(1 / mean))) for mean in means)
        return prompt, output

    return draw


def _condition(setup: Setup, workload: str, rate: float | None, name: str) -> Condition:
    data_set = next(key for key, value in _WORKLOADS.items() if value == workload)
    load = partial(
        make_load,
        setup.vocabulary,
        _lengths(setup, data_set),
        num_requests=setup.extent.num_requests if rate is None else setup.extent.num_arrivals,
        rate=rate,
    )
    return Condition(name=name, load=lambda seed: load(seed=seed))


def _points(results: Results, workload: str, target: str) -> list[tuple[float, list[float]]]:
    """(requests a second, values by block), where measured."""
    most = capacity(results, burst_name(workload))
    found = [(load * most, results.values(_name(workload, load), target, _METRIC)) for load in _LOADS]
    return [(rate, values) for rate, values in found if values]


def _limit(results: Results, workload: str) -> float | None:
    """Four times the first target's value at the lowest rate: one limit for all."""
    for target in results.live_targets:
        points = _points(results, workload, target)
        if points:
            return _LIMIT_FACTOR * statistics.fmean(points[0][1])
    return None


def _knee(results: Results, workload: str, target: str) -> Knee | None:
    points, limit = _points(results, workload, target), _limit(results, workload)
    if limit is None:
        return None
    return find_knee([rate for rate, _ in points], [statistics.fmean(values) for _, values in points], limit)


def _trade_off(setup: Setup, results: Results, workload: str) -> dict[str, Any]:
    loads = _loads(setup)
    names = [_name(workload, load) for load in loads]
    return trade_off(
        results,
        (_METRIC, names),
        ("tok_out_s", names),
        name=f"trade-off-{list(_WORKLOADS.values()).index(workload)}",
        title=f"Throughput against normalised latency, {workload}",
        notes=[f"{load:g}" for load in loads],
    )


def _panel(setup: Setup, results: Results, workload: str) -> dict[str, Any]:
    curves, knees = [], []
    for target in results.live_targets:
        points = _points(results, workload, target)
        if not points:
            continue
        found = [estimate_mean(values) for _, values in points]
        has_interval = all(one.n > 2 for one in found)
        colour = target_colour(target) if len(results.live_targets) > 1 else series_colour(0)
        curves.append(
            {
                "label": target,
                "colour": colour,
                "x": [rate for rate, _ in points],
                "y": [one.mean for one in found],
                "low": [one.low for one in found] if has_interval else [],
                "high": [one.high for one in found] if has_interval else [],
                "n": sum(
                    len(run.requests) for load in _LOADS for run in results.of(_name(workload, load), target)
                ),
            }
        )
        knee = _knee(results, workload, target)
        if knee is not None:
            sign = "> " if knee.is_beyond else ""
            knees.append(
                {"x": knee.rate, "label": f"{target}: {sign}{knee.rate:.2f} req/s", "colour": colour}
            )
    limit = _limit(results, workload)
    return {
        "kind": "lines",
        "name": f"curve-{workload.lower()}",
        "title": f"Normalised latency against rate, {workload} lengths",
        "subtitle": "; ".join(
            filter(None, ("mean of the blocks; 95 % intervals from 3 blocks", scale_note(setup)))
        ),
        "x_axis": "requests/s",
        "y_axis": "normalised latency [ms/token]",
        "may_log": True,
        "curves": curves,
        "knees": knees,
        "limit": None if limit is None else {"value": limit, "label": f"limit, {limit:.0f} ms/token"},
    }


def _predict(results: Results, data_set: str) -> Prediction:
    workload = _WORKLOADS[data_set]
    target = results.live_targets[0] if results.live_targets else ""
    knee = _knee(results, workload, target) if target else None
    printed = paper.paper_numbers()["fig12_knee_req_s_approx"][f"OPT13B_{data_set}"]
    shown = "–"
    if knee is not None:
        shown = f"{target}: {'above ' if knee.is_beyond else ''}{knee.rate:.2f} req/s"
    return Prediction(
        quantity=f"knee, {workload}",
        predicted="near capacity",
        claimed=f"vLLM {printed['vLLM']}, Orca (Oracle) {printed['OrcaOracle']}, FasterTransformer "
        f"{printed['FT']} req/s",
        source=f"{paper.CITATION}, figure 12, OPT-13B; read off a plot, about ±15 %",
        measured=shown,
        remark=f"capacity {capacity(results, burst_name(workload)):.2f} req/s; other model and machine",
    )


def _table(results: Results) -> Table:
    rows = []
    for target in results.live_targets:
        for workload in _WORKLOADS.values():
            for rate, values in _points(results, workload, target):
                rows.append([target, workload, f"{rate:.2f}", cell(values)])
    return Table(
        title="Normalised latency, ms/token",
        header=("target", "lengths", "req/s", "mean"),
        rows=rows,
        notes=("Mean over blocks, smallest and largest in brackets.",),
    )
