"""What each optimisation is worth: the same work with one of them off (the paper's figures 18 and 19 too)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.bench.experiments.experiment import (
    OPEN_LOOP,
    Condition,
    Findings,
    Prediction,
    Setup,
    Table,
    TimedRequest,
)
from octavo.bench.experiments.panels import forest, metric_bars
from octavo.bench.experiments.policies import STATIC_OWN
from octavo.bench.experiments.requests import anyscale_lengths, make_load, scale_note
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import cell, compare_conditions

_ALL = "everything on"
_TIGHT, _TIGHT_SWAP = "little KV memory, recompute", "little KV memory, swap"
_PROMPT, _CAP, _ROWS = (128, 384), 512, 16
_PREFIX = 256
_BLOCK_SIZES = (4, 8, 32, 64, 128)
_FEW_BLOCK_SIZES = (4, 64, 128)


@dataclass(frozen=True, slots=True)
class Variant:
    """The engine with something off.

    Attributes:
        against: what it is compared with.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    policy: str = OPEN_LOOP
    against: str = _ALL


def _variants(setup: Setup) -> list[Variant]:
    tight = {"kv_cache_memory": _tight_bytes(setup)}
    swap = tight | {"swap_space": 4 * _tight_bytes(setup)}
    return [
        Variant(_ALL),
        Variant("no prefix cache", {"prefix_caching": False}),
        Variant("prompts whole, not in chunks", {"max_num_batched_tokens": 8192}),
        Variant("static batches", policy=STATIC_OWN),
        Variant("one row", {"max_num_seqs": 1}),
        Variant("one thread", {"num_threads": 1}),
        Variant("weights and KV in float32", {"dtype": "float32"}),
        Variant("KV in float32", {"kv_cache_dtype": "float32"}),
        Variant(_TIGHT, tight),
        Variant(_TIGHT_SWAP, swap, against=_TIGHT),
        *(Variant(f"blocks of {size}", {"block_size": size}) for size in _block_sizes(setup)),
    ]


def _block_sizes(setup: Setup) -> tuple[int, ...]:
    return _BLOCK_SIZES if setup.extent.has_all_levels else _FEW_BLOCK_SIZES


def _tight_bytes(setup: Setup) -> int:
    """Room for the longest request and a quarter: less, and too few run at once to outgrow it."""
    tokens = 1.25 * (_PREFIX + _PROMPT[1] + _CAP) * setup.extent.length_scale
    return max(round(tokens * setup.kv_bytes_per_token), 2**20)


class Ablation:
    name = "ablation"
    title = "Each optimisation off"
    hypothesis = (
        "What makes the engine fast shows when it is taken away: low-bit products and batching most, the "
        "prefix cache where prompts begin alike, chunks in the latency; the size of blocks hardly at all."
    )
    design = (
        f"All at once: prompts of {_PROMPT[0]} to {_PROMPT[1]} tokens after a common prefix of {_PREFIX}, "
        f"outputs capped at {_CAP}, {_ROWS} rows. Each variant differs in one setting; every block runs all "
        "of them in random order."
    )
    needs_octavo = True

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        return (lambda results: [_condition(setup, variant) for variant in _variants(setup)],)

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        variants = _variants(setup)
        names = [variant.name for variant in variants]
        comparisons = [
            one
            for variant in variants
            if variant.name != variant.against
            for one in compare_conditions(
                results, ("tok_out_s", "ttft_ms_p50"), variant.against, [variant.name]
            )
        ]
        rates = [one for one in comparisons if one["metric"] == "tok_out_s"]
        firsts = [one for one in comparisons if one["metric"] == "ttft_ms_p50"]
        note = scale_note(setup)
        return Findings(
            predictions=_predict(comparisons, results),
            panels=[
                metric_bars(
                    results,
                    "tok_out_s",
                    name="output",
                    title="Output tokens per second",
                    conditions=names,
                    note=note,
                ),
                forest(
                    rates,
                    name="throughput",
                    title="Output tokens/s without it, over with it",
                    subtitle="below 1: it helped",
                ),
                forest(
                    firsts,
                    name="ttft",
                    title="Median TTFT without it, over with it",
                    subtitle="above 1: it helped",
                ),
            ],
            comparisons=comparisons,
            tables=[_table(results, names)],
            threats=[
                "One thing is taken away at a time; what two do together is not seen.",
                "Little KV memory is meant to be outgrown; where the table counts no preemption, it shows "
                "the wait for room alone.",
            ],
        )


def _condition(setup: Setup, variant: Variant) -> Condition:
    lengths = anyscale_lengths(setup, cap=_CAP, prompt=_PROMPT)
    num_prefix = round(_PREFIX * setup.extent.length_scale)

    def load(seed: int) -> list[TimedRequest]:
        prefix = random.Random(f"{seed}/prefix").choices(setup.vocabulary.token_ids, k=num_prefix)
        return make_load(
            setup.vocabulary, lengths, num_requests=setup.extent.num_arrivals, seed=seed, prefix=prefix
        )

    base = {"max_num_seqs": _ROWS, "max_num_batched_tokens": 256}
    return Condition(
        name=variant.name,
        load=load,
        policy=variant.policy,
        policy_rows=_ROWS,
        overrides=base | dict(variant.overrides),
    )


def _predict(comparisons: Sequence[Mapping[str, Any]], results: Results) -> list[Prediction]:
    rates = {one["of"]: one["ratio"] for one in comparisons if one["metric"] == "tok_out_s"}
    rows = []
    sizes = [rates[name] for size in _BLOCK_SIZES if (name := f"blocks of {size}") in rates]
    if sizes:
        rows.append(
            Prediction(
                quantity="block size 4 to 128, throughput over that of 16",
                predicted="flat from 16 on",
                claimed="16 to 128 good on ShareGPT, 16 and 32 on Alpaca",
                source="the vLLM paper, figure 18",
                measured=f"{min(sizes):.2f}× to {max(sizes):.2f}×",
                remark="CPU kernels read a block in rows of tokens whatever its size",
            )
        )
    if _TIGHT_SWAP in rates:
        preempted = [
            run.stats.get("preemptions", 0.0)
            for target in results.live_targets
            for run in results.of(_TIGHT, target)
        ]
        rows.append(
            Prediction(
                quantity="swap over recompute under pressure",
                predicted="near 1: both cost memory traffic on a CPU",
                claimed="recompute never above 20 % of swap's latency overhead",
                source="the vLLM paper, figure 19",
                measured=f"{rates[_TIGHT_SWAP]:.2f}×",
                remark=f"{sum(preempted):.0f} preemptions in {len(preempted)} runs; the figure is of a GPU",
            )
        )
    return rows


def _table(results: Results, names: Sequence[str]) -> Table:
    rows = [
        [
            name,
            cell(results.values(name, target, "tok_out_s")),
            cell(results.values(name, target, "ttft_ms_p50"), 0),
            cell(results.values(name, target, "tpot_ms_p50")),
            f"{sum(run.stats.get('preemptions', 0.0) for run in results.of(name, target)):.0f}",
        ]
        for target in results.live_targets
        for name in names
        if results.of(name, target)
    ]
    return Table(
        title="One optimisation off at a time",
        header=("", "output tok/s", "median TTFT, ms", "median TPOT, ms", "preemptions"),
        rows=rows,
        notes=("Mean over blocks, smallest and largest in brackets; preemptions of all blocks.",),
    )
