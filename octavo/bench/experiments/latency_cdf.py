"""Latency distributions under Poisson arrivals: the Buffering report's figures 2 and 3, raw values kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from octavo.bench.experiments.capacity import burst_name, capacity
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.panels import kv_timeline, latency_by_arrival, latency_ecdf
from octavo.bench.experiments.requests import anyscale_lengths, make_load, scale_note
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import compare_targets
from octavo.bench.statistics.description import describe

_PROMPTS = {"prompts 1–512": (1, 512), "prompts 128–384": (128, 384)}
_MAIN_PROMPTS = "prompts 128–384"  # alone at sizes that leave something out
_CAP = 1536
_RATES = (1.0, 4.0)
_LOADS = (0.5, 0.9)


class LatencyCdf:
    name = "latency-cdf"
    title = "Latency distributions under Poisson arrivals"
    hypothesis = (
        "Far below capacity a request's latency is its own length; near capacity the queue adds a tail. "
        "Means and single percentiles hide this, so whole distributions are shown."
    )
    design = (
        "Prompts uniform between 128 and 384 tokens (the post's code), at size paper also between 1 and 512 "
        "(its words); outputs capped exponential of mean 128; Poisson arrivals at 1 and 4 "
        "requests/s, divided by the scale of the lengths so that the load stays, and at 0.5 and 0.9 of the "
        "capacity measured with all at once."
    )
    needs_octavo = False

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        def probe(results: Results) -> list[Condition]:
            return [_condition(setup, workload, None, burst_name(workload)) for workload in _workloads(setup)]

        def measure(results: Results) -> list[Condition]:
            return [
                _condition(setup, workload, rate, name)
                for workload in _workloads(setup)
                for name, rate in _rates(setup, results, workload)
            ]

        return probe, measure

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        panels: list[dict[str, Any]] = []
        for index, workload in enumerate(_workloads(setup)):
            names = [name for name, _ in _rates(setup, results, workload)]
            for field, what in (("e2e_ms", "End-to-end latency"), ("ttft_ms", "Time to first token")):
                panels.append(
                    latency_ecdf(
                        results,
                        field,
                        name=f"{field.partition('_')[0]}-{index}",
                        title=f"{what}, {workload}{_in_brackets(scale_note(setup))}",
                        conditions=names,
                    )
                )
            panels.append(
                latency_by_arrival(
                    results,
                    name=f"arrivals-{index}",
                    title=f"Latency request by request, {workload}",
                    conditions=names[-2:],
                )
            )
            for target in results.live_targets:
                panel = kv_timeline(
                    results,
                    name=f"kv-{index}-{target}",
                    title=f"KV blocks over time, {names[-1]}",
                    condition=names[-1],
                    target=target,
                )
                panels += [panel] if panel else []
        return Findings(
            predictions=_predict(setup, results),
            panels=panels,
            comparisons=compare_targets(results, ("e2e_ms_p50", "ttft_ms_p50")),
            tables=[_table(setup, results)],
            threats=[
                "Above capacity the queue grows as long as requests come: latencies of such a rate say how "
                "many requests were sent, and little of the engine."
            ],
        )


def _workloads(setup: Setup) -> list[str]:
    return list(_PROMPTS) if setup.extent.has_all_levels else [_MAIN_PROMPTS]


def _in_brackets(note: str) -> str:
    return f" ({note})" if note else ""


def _rates(setup: Setup, results: Results, workload: str) -> list[tuple[str, float]]:
    """Conditions' names and requests a second."""
    scale = setup.extent.length_scale
    most = capacity(results, burst_name(workload))
    fixed = [(f"{workload}, {rate / scale:g} req/s", rate / scale) for rate in _RATES]
    return fixed + [(f"{workload}, {load:g} of capacity", load * most) for load in _LOADS]


def _condition(setup: Setup, workload: str, rate: float | None, name: str) -> Condition:
    load = partial(
        make_load,
        setup.vocabulary,
        anyscale_lengths(setup, cap=_CAP, prompt=_PROMPTS[workload]),
        num_requests=setup.extent.num_requests if rate is None else setup.extent.num_arrivals,
        rate=rate,
    )
    return Condition(name=name, load=lambda seed: load(seed=seed))


def _predict(setup: Setup, results: Results) -> list[Prediction]:
    rows = []
    for target in results.live_targets[:1]:
        for workload in _workloads(setup):
            names = [name for name, _ in _rates(setup, results, workload)]
            calm, busy = (results.values(name, target, "e2e_ms_p50") for name in names[-2:])
            if calm and busy:
                ratio = sum(busy) / len(busy) / (sum(calm) / len(calm))
                rows.append(
                    Prediction(
                        quantity=f"median latency at 0.9 over 0.5 of capacity, {workload}",
                        predicted="above 1",
                        claimed="continuous batching lowers the median latency; no number in the text",
                        source="Anyscale post, 2023",
                        measured=f"{ratio:.2f}×",
                        remark=f"{target}; capacity {capacity(results, burst_name(workload)):.2f} req/s",
                    )
                )
    rows.append(
        Prediction(
            quantity="latency against static batching",
            claimed="11× lower (abstract), up to 200× (section 5.4.3)",
            source="CSCE 585 Buffering report",
            measured="see `octavo bench run batching`",
            remark="the report contradicts itself, and its data are not public",
        )
    )
    return rows


def _table(setup: Setup, results: Results) -> Table:
    rows = []
    for target in results.live_targets:
        for workload in _workloads(setup):
            for name, rate in _rates(setup, results, workload):
                pooled = [one for block in results.request_values(name, target, "e2e_ms") for one in block]
                if not pooled:
                    continue
                found = describe(pooled)
                tail = found.percentiles[2]
                high = f"needs n ≥ {tail.needs}" if tail.value is None else f"{tail.value:,.0f}"
                numbers = (found.mean, found.median, found.sd or 0.0, found.largest)
                rows.append(
                    [target, name, f"{rate:.2f}", f"{found.n}", *(f"{one:,.0f}" for one in numbers), high]
                )
    return Table(
        title="End-to-end latency, ms",
        header=("target", "", "req/s", "n", "mean", "median", "sd", "largest", "p95"),
        rows=rows,
        notes=("Requests of all blocks together; their percentiles' intervals stand in the report.",),
    )
