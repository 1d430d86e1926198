"""The same kernels under older and newer ways of batching: static, TGI-like, continuous, chunked prefill."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from octavo.bench.experiments.experiment import OPEN_LOOP, Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.panels import forest, gantt, metric_bars
from octavo.bench.experiments.policies import STATIC_GLOBAL, STATIC_OWN, TGI_LIKE
from octavo.bench.experiments.requests import anyscale_lengths, make_load, scale_note
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import cell, compare_conditions

CAPS = (128, 1536)
CONTINUOUS = "continuous"
CHUNKED = "continuous, prompts in chunks"
POLICIES = (STATIC_GLOBAL, STATIC_OWN, TGI_LIKE, CONTINUOUS, CHUNKED)
_PROMPT = (512, 512)
_ROWS = {"smoke": 4, "ci": 4, "full": 8, "paper": 8}
# A step that takes any prompt whole, and one that takes it in pieces beside the decodes.
_WHOLE_PROMPTS = 8192
_CHUNK = 64


class Batching:
    name = "batching"
    title = "Ways of batching on the same kernels"
    hypothesis = (
        "A static batch runs until its longest row ends, so its gain is bounded by mean length over mean "
        "longest length; padding every batch to the longest of all requests, as the Anyscale benchmark's "
        "naive server did, costs several times more. Continuous batching refills rows at once."
    )
    design = (
        "512-token prompts, capped exponential outputs, all at once, and never more rows than the static "
        "batches have. Static and TGI-like batching are formed outside of the engine, on the same kernels; "
        "padding counts for nothing; a static batch answers when all of it has ended. TGI-like: newcomers "
        "join when 1.2 times as many wait as run, or after 7 decode steps; prompt + output tokens are "
        "charged."
    )
    needs_octavo = True

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        return (lambda results: [_condition(setup, one, cap) for cap in CAPS for one in POLICIES],)

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        num_rows = _ROWS[setup.size]
        panels, comparisons = [], []
        for cap in CAPS:
            names = {_name(policy, cap): policy for policy in POLICIES}
            panels.append(
                metric_bars(
                    results,
                    "tok_out_s",
                    name=f"output-{cap}",
                    title=f"Output tokens per second, cap {cap}, {num_rows} rows",
                    conditions=list(names),
                    labels=names,
                    note=scale_note(setup),
                )
            )
            found = compare_conditions(results, ("tok_out_s",), _name(STATIC_OWN, cap), list(names))
            comparisons += [_short(one, cap) for one in found]
        panels += _gantts(results, num_rows)
        panels.append(
            forest(
                comparisons,
                name="ratios",
                title="Output tokens per second against a static batch padded to its own longest",
                subtitle="95 % intervals over blocks; logarithmic",
            )
        )
        return Findings(
            predictions=[one for cap in CAPS for one in _predict(results, cap, num_rows)],
            panels=panels,
            comparisons=comparisons,
            tables=[_table(results)],
            threats=[
                "TGI itself pauses decodes to compute newcomers' prompts; here the engine computes them "
                "beside the decodes, so TGI-like means its rule of admission alone.",
                "The ceiling assumes that a step takes as long with few rows as with many. On a CPU a step "
                "with fewer rows is faster, so a static batch loses less than its idle rows.",
            ],
        )


def _name(policy: str, cap: int) -> str:
    return f"{policy}, cap {cap}"


def _condition(setup: Setup, policy: str, cap: int) -> Condition:
    num_rows = _ROWS[setup.size]
    load = partial(
        make_load,
        setup.vocabulary,
        anyscale_lengths(setup, cap=cap, prompt=_PROMPT),
        num_requests=setup.extent.num_requests,
    )
    is_inside = policy in (CONTINUOUS, CHUNKED)
    step = max(_CHUNK, num_rows) if policy == CHUNKED else _WHOLE_PROMPTS
    return Condition(
        name=_name(policy, cap),
        load=lambda seed: load(seed=seed),
        policy=OPEN_LOOP if is_inside else policy,
        policy_rows=num_rows,
        overrides={"max_num_seqs": num_rows, "max_num_batched_tokens": step, "prefix_caching": False},
    )


def _short(one: Mapping[str, Any], cap: int) -> dict[str, Any]:
    """A comparison with the cap told once."""
    ending = f", cap {cap}"
    of, against = (str(one[name]).removesuffix(ending) for name in ("of", "against"))
    return dict(one) | {"of": of, "against": against, "group": f"cap {cap}"}


def _gantts(results: Results, num_rows: int) -> list[dict[str, Any]]:
    """One for each policy, on one axis of time."""
    found = [
        gantt(
            results,
            name=f"rows-{index}",
            title=f"Rows of the batch: {policy}, cap {CAPS[-1]}",
            condition=_name(policy, CAPS[-1]),
            target=target,
            num_rows=num_rows,
        )
        for target in results.live_targets[:1]
        for index, policy in enumerate(POLICIES)
    ]
    panels = [panel for panel in found if panel is not None]
    end = max((bar["end"] for panel in panels for bar in panel["bars"]), default=1.0)
    return [panel | {"x_end": end} for panel in panels]


def _predict(results: Results, cap: int, num_rows: int) -> list[Prediction]:
    if not results.live_targets:
        return []
    target = results.live_targets[0]
    rows = []
    for policy, claim in ((STATIC_OWN, "–"), (STATIC_GLOBAL, "8× (Ray, TGI), 23× (vLLM, with paging)")):
        ceilings = [
            _ceiling(
                [one.num_output_tokens for one in run.requests], num_rows, is_global=policy == STATIC_GLOBAL
            )
            for run in results.of(_name(policy, cap), target)
            if run.requests
        ]
        found = results.compare("tok_out_s", (_name(CONTINUOUS, cap), target), (_name(policy, cap), target))
        if not ceilings or found is None:
            continue
        rows.append(
            Prediction(
                quantity=f"continuous over {policy}, cap {cap}",
                predicted=f"at most {statistics.fmean(ceilings):.2f}×",
                claimed=claim if cap == CAPS[-1] else "–",
                source="Anyscale post, 2023" if policy == STATIC_GLOBAL and cap == CAPS[-1] else "",
                measured=f"{found.ratio:.2f}×",
                remark=f"ceiling: what {num_rows} rows compute, padding included, over what was asked for",
            )
        )
    return rows


def _ceiling(lengths: Sequence[int], num_rows: int, *, is_global: bool) -> float:
    """Row steps of the static batches over the tokens that were asked for."""
    longest = max(lengths)
    batches = [lengths[first : first + num_rows] for first in range(0, len(lengths), num_rows)]
    padded = sum(num_rows * (longest if is_global else max(batch)) for batch in batches)
    return padded / sum(lengths)


def _table(results: Results) -> Table:
    rows = [
        [
            policy,
            f"cap {cap}",
            cell(results.values(_name(policy, cap), target, "tok_out_s")),
            cell(results.values(_name(policy, cap), target, "e2e_ms_p50"), 0),
            cell(results.values(_name(policy, cap), target, "ttft_ms_p50"), 0),
            cell(results.values(_name(policy, cap), target, "batch_mean")),
        ]
        for target in results.live_targets
        for cap in CAPS
        for policy in POLICIES
    ]
    return Table(
        title="Ways of batching",
        header=("", "", "output tok/s", "median latency, ms", "median TTFT, ms", "rows running"),
        rows=rows,
        notes=(
            "Mean over blocks, smallest and largest in brackets. TTFT of static batches is the first token "
            "computed, though such a server would answer at the batch's end.",
        ),
    )
