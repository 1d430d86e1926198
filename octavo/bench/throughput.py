"""Throughput: all requests at once, in this process, as fast as the engine goes.

Drives the engine itself: no text, no HTTP. What it reports can be recomputed from the steps it keeps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from octavo.bench.machine import Machine, describe_machine
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.workload import WorkloadRequest, WorkloadSpec, make_workload
from octavo.build import EngineFacts, build_engine, build_text
from octavo.config import EngineConfig
from octavo.errors import RequestFailedError
from octavo.observability.process import peak_rss_bytes, seconds_since_process_start
from octavo.request import FinishReason

if TYPE_CHECKING:
    from octavo.control.engine import Engine
    from octavo.control.step_trace import StepTrace


@dataclass(frozen=True, kw_only=True)
class ThroughputReport:
    """Attributes:
    ready_seconds: from the start of this process to an engine that takes requests.
    run_seconds: from the first submit to the last token.
    peak_rss_bytes: resident memory of this process and its children.
    steps: what each step did.
    """

    date: str
    machine: Machine
    engine: EngineFacts
    workload: WorkloadSpec
    num_prompt_tokens: int
    num_output_tokens: int
    ready_seconds: float
    run_seconds: float
    peak_rss_bytes: int
    steps: list[StepTrace]

    @property
    def output_tokens_per_second(self) -> float:
        return self.num_output_tokens / self.run_seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        return self.num_prompt_tokens / self.run_seconds

    @property
    def total_tokens_per_second(self) -> float:
        return (self.num_prompt_tokens + self.num_output_tokens) / self.run_seconds

    @property
    def mean_waste(self) -> float:
        """Reserved but empty slots over used slots, averaged over the steps that left any used."""
        wastes = [step.waste for step in self.steps if step.used_slots]
        return sum(wastes) / len(wastes) if wastes else 0.0

    @property
    def max_waste(self) -> float:
        return max((step.waste for step in self.steps), default=0.0)

    @property
    def peak_blocks(self) -> int:
        return max((step.blocks_used for step in self.steps), default=0)

    @property
    def num_preemptions(self) -> int:
        return sum(step.num_preemptions for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the derived numbers first and the steps as columns last."""
        derived = {
            name: round(getattr(self, name), 6)
            for name, member in vars(type(self)).items()
            if isinstance(member, property)
        }
        columns = asdict(self)
        steps = columns.pop("steps")
        names = steps[0].keys() if steps else ()
        return (
            {"benchmark": "throughput"}
            | derived
            | columns
            | {"steps": {name: [round(step[name], 6) for step in steps] for name in names}}
        )


def run_throughput(
    config: EngineConfig,
    spec: WorkloadSpec,
    *,
    on_token: Callable[[int, int], None] | None = None,
) -> ThroughputReport:
    """Load the model, run the workload, report.

    Args:
        on_token: called after each step with (tokens made, tokens in all).

    Raises:
        ModelLoadError, ConfigError: the engine cannot be built.
        RequestError: the workload does not fit the model's context or the KV pool.
        RequestFailedError: a request broke; a number over fewer requests would mean nothing.
    """
    text = build_text(config.model)
    requests = make_workload(spec, ordinary_token_ids(text))
    scheduler = replace(config.scheduler, max_queued_requests=spec.num_requests)
    parts = build_engine(replace(config, scheduler=scheduler))
    ready_seconds = seconds_since_process_start()
    try:
        run_seconds, steps = _run(parts.engine, requests, on_token)
    finally:
        parts.engine.close()
    return ThroughputReport(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        engine=parts.facts,
        workload=spec,
        num_prompt_tokens=sum(len(request.prompt_token_ids) for request in requests),
        num_output_tokens=_num_output_tokens(requests),
        ready_seconds=ready_seconds,
        run_seconds=run_seconds,
        peak_rss_bytes=peak_rss_bytes(os.getpid()),
        steps=steps,
    )


def _run(
    engine: Engine, requests: list[WorkloadRequest], on_token: Callable[[int, int], None] | None
) -> tuple[float, list[StepTrace]]:
    """Submit everything, then step to the end. Seconds taken, and each step's trace."""
    num_wanted, num_made = _num_output_tokens(requests), 0
    steps: list[StepTrace] = []
    started_seconds = time.perf_counter()
    for index, request in enumerate(requests):
        engine.submit(str(index), request.prompt_token_ids, request.params)
    while engine.has_work:
        for delta in engine.step():
            if delta.finish_reason is FinishReason.ERROR:
                raise RequestFailedError(f"request {delta.request_id} failed: {delta.error}")
            num_made += len(delta.token_ids)
        if engine.last_step is not None:
            steps.append(engine.last_step)
        if on_token is not None:
            on_token(num_made, num_wanted)
    run_seconds = time.perf_counter() - started_seconds
    if num_made != num_wanted:
        raise RequestFailedError(f"the engine made {num_made} tokens, and {num_wanted} were asked for")
    return run_seconds, steps


def _num_output_tokens(requests: list[WorkloadRequest]) -> int:
    return sum(request.params.max_tokens or 0 for request in requests)
