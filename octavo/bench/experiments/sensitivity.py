"""What moves throughput and latency most: one factor at a time around one baseline (Buffering, 4.5.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.bench.experiments.capacity import capacity
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table, TimedRequest
from octavo.bench.experiments.measures import METRICS
from octavo.bench.experiments.requests import anyscale_lengths, make_load, scale_note
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.targets_beside import cell, compare_conditions

_BASELINE = "baseline"
_PROMPT, _CAP, _ROWS, _CHUNK, _BLOCK = 256, 512, 16, 256, 16


@dataclass(frozen=True, slots=True)
class Setting:
    """One factor at one other value.

    Attributes:
        overrides: of the engine.
        prompt, cap: of the workload, at full scale.
        load: Poisson arrivals at this share of capacity; None for all at once.
    """

    factor: str
    shown: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    prompt: int = _PROMPT
    cap: int = _CAP
    load: float | None = None

    @property
    def name(self) -> str:
        return f"{self.factor}: {self.shown}"


def _settings(setup: Setup) -> list[Setting]:
    kv_bytes = setup.config.cache.kv_cache_memory or 0
    found = [
        Setting("output cap", "÷4", cap=_CAP // 4),
        Setting("output cap", "×4", cap=_CAP * 4),
        Setting("prompt length", "÷4", prompt=_PROMPT // 4),
        Setting("prompt length", "×2", prompt=_PROMPT * 2),
        Setting("rows", f"{_ROWS // 4}", {"max_num_seqs": _ROWS // 4}),
        Setting("rows", f"{_ROWS * 4}", {"max_num_seqs": _ROWS * 4}),
        Setting("tokens in a step", f"{_CHUNK // 4}", {"max_num_batched_tokens": _CHUNK // 4}),
        Setting("tokens in a step", f"{_CHUNK * 4}", {"max_num_batched_tokens": _CHUNK * 4}),
        Setting("block size", "4", {"block_size": 4}),
        Setting("block size", "64", {"block_size": 64}),
        Setting("arrivals", "50 %", load=0.5),
        Setting("arrivals", "100 %", load=1.0),
    ]
    if kv_bytes:
        small = max(_tight_kv_bytes(setup), 1)
        found.append(Setting("KV memory", "a few requests", {"kv_cache_memory": small}))
    return found


def _tight_kv_bytes(setup: Setup) -> int:
    """Room for four of the longest requests, rounded to megabytes."""
    tokens = 4 * (_PROMPT + _CAP) * setup.extent.length_scale
    return max(round(tokens * setup.kv_bytes_per_token), 2**20)


class Sensitivity:
    name = "sensitivity"
    title = "What moves throughput and latency most"
    hypothesis = (
        "Lengths and rows move throughput more than the pager's settings; latency follows arrivals most."
    )
    design = (
        f"Baseline: prompts of {_PROMPT} tokens, outputs capped at {_CAP}, {_ROWS} rows, {_CHUNK} tokens in "
        f"a step, blocks of {_BLOCK}, all at once; then each factor alone at a lower and a higher value, "
        "every block with all of them in random order. Arrivals are Poisson, in percent of the baseline's "
        "capacity."
    )
    needs_octavo = True

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        baseline = Setting(_BASELINE, "")
        settings = _settings(setup)

        def at_once(results: Results) -> list[Condition]:
            return [_condition(setup, one, None) for one in (baseline, *settings) if one.load is None]

        def arriving(results: Results) -> list[Condition]:
            most = capacity(results, _BASELINE)
            return [_condition(setup, one, one.load * most) for one in settings if one.load is not None]

        return at_once, arriving

    def calculate(self, setup: Setup) -> dict[str, Any]:
        return {}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        settings = _settings(setup)
        names = [one.name for one in settings]
        metrics = {"tok_out_s": "Output tokens per second", "e2e_ms_p50": "Median latency"}
        comparisons = {
            metric: {str(one["of"]): one for one in compare_conditions(results, (metric,), _BASELINE, names)}
            for metric in metrics
        }
        panels = [
            _tornado(setup, settings, comparisons[metric], metric, title) for metric, title in metrics.items()
        ]
        return Findings(
            predictions=[_predict(settings, comparisons["tok_out_s"], comparisons["e2e_ms_p50"])],
            panels=panels,
            comparisons=[one for found in comparisons.values() for one in found.values()],
            tables=[_table(results, [_BASELINE, *names])],
            threats=[
                "One factor at a time says nothing of how factors work together.",
                "With Poisson arrivals below capacity throughput is what was offered, and not what is "
                "possible.",
            ],
        )


def _condition(setup: Setup, setting: Setting, rate: float | None) -> Condition:
    lengths = anyscale_lengths(setup, cap=setting.cap, prompt=(setting.prompt, setting.prompt))
    base = {"max_num_seqs": _ROWS, "max_num_batched_tokens": _CHUNK, "block_size": _BLOCK}

    def load(seed: int) -> list[TimedRequest]:
        num_requests = setup.extent.num_arrivals
        return make_load(setup.vocabulary, lengths, num_requests=num_requests, seed=seed, rate=rate)

    name = _BASELINE if setting.factor == _BASELINE else setting.name
    return Condition(name=name, load=load, overrides=base | dict(setting.overrides))


def _tornado(
    setup: Setup, settings: Sequence[Setting], found: Mapping[str, Mapping[str, Any]], metric: str, title: str
) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for setting in settings:
        one = found.get(setting.name)
        if one is None or (setting.load is not None and metric == "tok_out_s"):
            continue
        has_interval = one["num_blocks"] > 2
        rows.setdefault(setting.factor, []).append(
            {
                "setting": setting.shown,
                "ratio": one["ratio"],
                "low": one["low"] if has_interval else None,
                "high": one["high"] if has_interval else None,
            }
        )
    num_blocks = max((one["num_blocks"] for one in found.values()), default=0)
    note = scale_note(setup)
    return {
        "kind": "tornado",
        "name": f"tornado-{metric}",
        "title": f"{title}: one factor at a time",
        "subtitle": f"ratio to the baseline, paired in {num_blocks} blocks" + (f"; {note}" if note else ""),
        "axis": f"{METRICS[metric].label}, ratio to the baseline",
        "rows": [{"label": factor, "ends": ends} for factor, ends in rows.items()],
    }


def _predict(
    settings: Sequence[Setting],
    throughput: Mapping[str, Mapping[str, Any]],
    latency: Mapping[str, Mapping[str, Any]],
) -> Prediction:
    def strongest(found: Mapping[str, Mapping[str, Any]], *, with_arrivals: bool) -> str:
        usable = [one for one in settings if one.name in found and (with_arrivals or one.load is None)]
        if not usable:
            return "–"
        most = max(usable, key=lambda one: max(found[one.name]["ratio"], 1 / found[one.name]["ratio"]))
        return f"{most.name} ({found[most.name]['ratio']:.2f}×)"

    return Prediction(
        quantity="what moves most",
        predicted="throughput: lengths and rows; latency: arrivals",
        claimed="response length and request rate",
        source="CSCE 585 Buffering report, 4.5.3, in words",
        measured=f"throughput: {strongest(throughput, with_arrivals=False)}; "
        f"latency: {strongest(latency, with_arrivals=True)}",
    )


def _table(results: Results, names: Sequence[str]) -> Table:
    rows = [
        [
            name,
            *(cell(results.values(name, target, metric)) for metric in ("tok_out_s", "tok_total_s")),
            cell(results.values(name, target, "e2e_ms_p50"), 0),
        ]
        for target in results.live_targets
        for name in names
        if results.of(name, target)
    ]
    return Table(
        title="One factor at a time",
        header=("", "output tok/s", "total tok/s", "median latency, ms"),
        rows=rows,
        notes=("Mean over blocks, smallest and largest in brackets.",),
    )
