"""KV blocks saved by sharing, for parallel sampling and beam search (the vLLM paper's section 6.3).

A saving is blocks saved by sharing over blocks needed without it, mean of a request's steps, as the
engine reports it of each request. Drives the engine itself: no text, no HTTP.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from octavo.bench import paper
from octavo.bench.beam_step import BeamStepCost, measure_beam_steps
from octavo.bench.machine import describe_machine
from octavo.bench.prompts import ordinary_token_ids, sample_prompts
from octavo.bench.sharing_spec import METHODS, SharingSpec
from octavo.bench.statistics import quantile
from octavo.bench.traces import make_trace
from octavo.bench.workload import make_workload
from octavo.build import EngineFacts, TextParts, build_engine, build_text
from octavo.config import EngineConfig
from octavo.errors import RequestFailedError
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.control.engine import Engine

_LONGEST = 2048

DIFFERENCES = (
    "The paper ran OPT-13B on the prompts of Alpaca and ShareGPT. Here the loaded model runs on prompts that "
    "it sampled itself, with exponential lengths of those data sets' printed means; EOS is ignored, so that "
    "every output has its drawn length."
)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """One method and width on one data set's lengths.

    Attributes:
        mean: blocks saved over blocks without sharing, mean of all steps of all requests.
        by_request: the same of each request.
        paper: what the paper printed for it, in percent; a range where it gives no more.
    """

    data_set: str
    method: str
    width: int
    mean: float
    by_request: list[float]
    paper: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "data_set": self.data_set,
            "method": self.method,
            "width": self.width,
            "saving_percent": round(100 * self.mean, 3),
            "paper_percent": self.paper,
            "median_request_percent": round(100 * quantile(self.by_request, 0.5), 3),
            "by_request_percent": [round(100 * one, 3) for one in self.by_request],
        }


@dataclass(frozen=True, kw_only=True)
class SharingReport:
    """Attributes:
    mean_lengths: data set -> mean prompt and output tokens of what was drawn.
    """

    spec: SharingSpec
    engine: EngineFacts
    mean_lengths: dict[str, tuple[float, float]]
    savings: list[Saving]
    beam_step: BeamStepCost

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": "sharing",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe_machine()),
            "load_average": os.getloadavg(),
            "engine": asdict(self.engine),
            "spec": asdict(self.spec),
            "mean_lengths": self.mean_lengths,
            "definition": paper.paper_numbers()["saving_definition"],
            "paper": paper.CITATION,
            "what_differs": DIFFERENCES,
            "savings": [saving.as_json() for saving in self.savings],
            "beam_step": self.beam_step.as_json(),
        }


def run_sharing(
    config: EngineConfig, spec: SharingSpec, *, on_done: Callable[[], None] | None = None
) -> SharingReport:
    """Load the model; measure every data set, method and width, then the cost of a beam step.

    Args:
        on_done: called after each measurement.

    Raises:
        ModelLoadError, ConfigError: the engine cannot be built.
        RequestError: a request does not fit the model's context or the KV pool.
        RequestFailedError: a request broke.
    """
    text = build_text(config.model)
    parts = build_engine(config)
    longest = min(_LONGEST, parts.facts.max_model_len)
    savings: list[Saving] = []
    mean_lengths = {}
    try:
        for name in spec.data_sets:
            prompts, outputs = _make_requests(spec, name, longest, text, parts.engine)
            mean_lengths[name] = statistics.fmean(map(len, prompts)), statistics.fmean(outputs)
            for method in METHODS:
                for width in spec.widths:
                    savings.append(_measure(parts.engine, name, method, width, prompts, outputs))
                    if on_done is not None:
                        on_done()
        beam_step = _compare_steps(config, spec, parts.engine, prompts)
        if on_done is not None:
            on_done()
    finally:
        parts.engine.close()
    return SharingReport(
        spec=spec, engine=parts.facts, mean_lengths=mean_lengths, savings=savings, beam_step=beam_step
    )


def _make_requests(
    spec: SharingSpec, name: str, longest: int, text: TextParts, engine: Engine
) -> tuple[list[list[int]], list[int]]:
    """Prompts, and how long their outputs are to be."""
    ordinary = ordinary_token_ids(text)
    trace = make_trace(name, num_requests=spec.num_requests, seed=spec.seed, max_model_len=longest)
    drawn = make_workload(trace.workload, ordinary)
    prompts = sample_prompts(
        engine,
        [len(one.prompt_token_ids) for one in drawn],
        [one.prompt_token_ids[0] for one in drawn],
        sorted(text.tokenizer.special_token_ids),
    )
    engine.cache.drop()
    return prompts, [one.params.max_tokens or 1 for one in drawn]


def _measure(
    engine: Engine, name: str, method: str, width: int, prompts: list[list[int]], outputs: list[int]
) -> Saving:
    requests = []
    for number, (prompt, max_tokens) in enumerate(zip(prompts, outputs, strict=True)):
        common = SamplingParams(n=width, max_tokens=max_tokens, ignore_eos=True)
        if method == "beam":
            params = replace(common, use_beam_search=True, temperature=0.0)
        else:
            params = replace(common, seed=number)
        requests.append(engine.submit(f"{name}-{method}-{width}-{number}", prompt, params))
    while engine.has_work:
        for delta in engine.step():
            if delta.finish_reason is FinishReason.ERROR:
                raise RequestFailedError(f"request {delta.request_id} failed: {delta.error}")
    engine.cache.drop()
    num_steps = sum(request.num_sharing_steps for request in requests)
    return Saving(
        data_set=name,
        method=method,
        width=width,
        mean=sum(request.sharing_total for request in requests) / max(num_steps, 1),
        by_request=[request.sharing or 0.0 for request in requests],
        paper=_printed(name, method, width),
    )


def _printed(name: str, method: str, width: int) -> str | None:
    if width not in (2, 4, 6):
        return None
    if name == "alpaca":
        return f"{paper.alpaca_saving_percent(method, width):.2f}"
    return f"{paper.sharegpt_saving_percent(method)} (2 to 6)"


def _compare_steps(
    config: EngineConfig, spec: SharingSpec, engine: Engine, prompts: list[list[int]]
) -> BeamStepCost:
    """Beams on the engine that is there, ordinary sequences on a second one."""
    other = build_engine(config).engine
    try:
        return measure_beam_steps(
            engine, other, prompts[0], width=spec.step_width, num_pairs=spec.num_step_pairs
        )
    finally:
        other.close()
