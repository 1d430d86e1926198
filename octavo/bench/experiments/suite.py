"""One experiment from settings to a folder of results: what `octavo bench run` does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from octavo.bench.experiments.catalogue import EXPERIMENTS
from octavo.bench.experiments.experiment import Experiment, Findings, Setup, Vocabulary
from octavo.bench.experiments.measures import METRICS
from octavo.bench.experiments.results import Results
from octavo.bench.experiments.runner import ExperimentRunner, MakeTarget, Progress
from octavo.bench.experiments.size import extent_of
from octavo.bench.experiments.store import ResultsFolder
from octavo.bench.machine import describe_machine
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.report.documents import SCHEMA_VERSION
from octavo.bench.report.figure_files import draw_figures
from octavo.bench.report.page import render_report
from octavo.bench.statistics.description import describe
from octavo.bench.targets.registry import TargetName, make_target, parse_target
from octavo.bench.targets.settings import DEFAULT_KV_BYTES, TargetSettings, change_config
from octavo.bench.targets.target import Target, TargetDescription
from octavo.build import build_text
from octavo.config import EngineConfig
from octavo.control.cache.cache_size import block_bytes
from octavo.errors import ConfigError

OCTAVO = "octavo"
_DESCRIBED_FIELDS = ("e2e_ms", "ttft_ms", "tpot_ms", "norm_latency_ms_per_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """What `octavo bench run` was asked."""

    experiment: str
    size: str
    targets: tuple[str, ...]
    seed: int
    out: Path
    resume: bool
    config: EngineConfig


def run_suite(
    settings: SuiteSettings, *, on_progress: Callable[[Progress], None] | None = None
) -> dict[str, Any]:
    """Run what is not there yet, write everything, and return what results.json holds.

    Raises:
        ConfigError: a setting is wrong, or the folder cannot be used.
        ModelLoadError: the model cannot be loaded.
    """
    experiment = EXPERIMENTS[settings.experiment]
    if settings.config.cache.kv_cache_memory is None:
        cache = replace(settings.config.cache, kv_cache_memory=DEFAULT_KV_BYTES)
        settings = replace(settings, config=replace(settings.config, cache=cache))
    names = _parse_targets(experiment, settings.targets)
    setup = _make_setup(settings)
    kept = {
        "experiment": settings.experiment,
        "size": settings.size,
        "targets": list(settings.targets),
        "seed": settings.seed,
        "config": asdict(settings.config),
    }
    folder = ResultsFolder(settings.out, kept, resume=settings.resume)
    load_before = os.getloadavg()
    runner = ExperimentRunner(
        experiment,
        setup,
        folder,
        list(names),
        _target_maker(settings.config, names),
        on_progress=on_progress,
    )
    results = asyncio.run(runner.run())
    findings = experiment.conclude(setup, results)
    document = make_document(
        experiment,
        setup,
        results,
        findings,
        runner.descriptions,
        conformance=runner.conformance,
        settings=kept,
    )
    document["load_average"] = {"before": load_before, "after": os.getloadavg()}
    folder.write_results(document, results)
    folder.write_figures(render_report([document]), draw_figures(document))
    return document


def _parse_targets(experiment: Experiment, texts: Sequence[str]) -> dict[str, TargetName]:
    """Label -> target.

    Raises:
        ConfigError: one is unknown, named twice, or has no part in the experiment.
    """
    if experiment.needs_octavo and tuple(texts) != (OCTAVO,):
        raise ConfigError(f"--target has no effect on {experiment.name}: it varies Octavo's own engine")
    parsed = [parse_target(text) for text in texts]
    found = {one.label: one for one in parsed}
    if len(found) < len(parsed):
        raise ConfigError("--target: two have the same label; write for example other:octavo=dtype=float32")
    return found


def _make_setup(settings: SuiteSettings) -> Setup:
    text = build_text(settings.config.model)
    longest = text.description.spec.max_positions
    return Setup(
        size=settings.size,
        extent=extent_of(settings.size, settings.experiment),
        seed=settings.seed,
        config=settings.config,
        text=text,
        kv_bytes_per_token=block_bytes(text.description.spec, 1, 2),
        vocabulary=Vocabulary(
            token_ids=ordinary_token_ids(text),
            decode=text.tokenizer.decode,
            max_model_len=min(settings.config.model.max_model_len or longest, longest),
        ),
    )


def _target_maker(config: EngineConfig, names: Mapping[str, TargetName]) -> MakeTarget:
    def make(label: str, overrides: Mapping[str, Any]) -> Target:
        changed = change_config(config, {key: str(value).lower() for key, value in overrides.items()})
        return make_target(names[label], TargetSettings.of(changed))

    return make


def make_document(
    experiment: Experiment,
    setup: Setup,
    results: Results,
    findings: Findings,
    descriptions: Mapping[str, TargetDescription],
    *,
    conformance: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """All that results.json says; the report is drawn from it alone."""
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "run",
        "experiment": experiment.name,
        "title": experiment.title,
        "size": setup.size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(describe_machine()),
        "settings": dict(settings),
        "extent": asdict(setup.extent),
        "hypothesis": experiment.hypothesis,
        "design": experiment.design,
        "targets": [asdict(one) for one in descriptions.values()],
        "conformance": dict(conformance),
        "failures": results.failures,
        "warnings": _warnings(setup, results),
        "metrics": {name: asdict(one) for name, one in METRICS.items()},
        "measures": _measures(results),
        "distributions": _distributions(results),
        "calculated": results.calculated,
        **findings.as_json(),
    }


def _measures(results: Results) -> list[dict[str, Any]]:
    """Each metric's values, block by block: what `octavo bench diff` compares."""
    rows = []
    for condition in results.conditions:
        for target in results.live_targets:
            runs = results.of(condition, target)
            names = [name for name in METRICS if any(name in run.metrics for run in runs)]
            rows += [
                {
                    "condition": condition,
                    "target": target,
                    "metric": name,
                    "blocks": [run.block for run in runs if name in run.metrics],
                    "values": [run.metrics[name] for run in runs if name in run.metrics],
                }
                for name in names
            ]
    return rows


def _distributions(results: Results) -> list[dict[str, Any]]:
    """Requests of all blocks pooled: long requests do not weigh more than short ones."""
    rows = []
    for condition in results.conditions:
        for target in results.live_targets:
            for field in _DESCRIBED_FIELDS:
                blocks = results.request_values(condition, target, field)
                pooled = [value for block in blocks for value in block]
                if pooled:
                    numbers = describe(pooled).as_json()
                    rows.append({"condition": condition, "target": target, "field": field} | numbers)
    return rows


def _warnings(setup: Setup, results: Results) -> list[str]:
    """What a reader must know before the numbers."""
    lines = [f"{name}: {line}" for name, line in results.failures.items()]
    num_errors = sum(len(run.errors) for run in results.outcomes)
    if num_errors:
        first = next(run.errors[0] for run in results.outcomes if run.errors)
        lines.append(f"{num_errors} requests failed and are in no average; the first: {first}")
    bound = sorted({f"{run.condition} ({run.target})" for run in results.outcomes if run.is_client_bound})
    if bound:
        more = f" and {len(bound) - 2} more conditions" if len(bound) > 2 else ""
        lines.append(f"client-bound: the client sent late in {'; '.join(bound[:2])}{more}")
    drifted = sum(run.drift > 0.1 for run in results.outcomes)
    if drifted:
        lines.append(
            f"the machine changed by more than 10 % during {drifted} of {len(results.outcomes)} runs"
        )
    if results.outcomes and setup.extent.num_blocks < 5:
        lines.append(
            f"size {setup.size} has {setup.extent.num_blocks} blocks: its numbers show that everything "
            "works, and carry no verdict"
        )
    return lines
