"""What it costs to plan one step, by the number of running sequences and by policy. Computes nothing else.

Drives the real scheduler and cache; tokens are made up. Only the call of `plan_step` is timed.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from octavo.bench.machine import describe_machine
from octavo.bench.statistics import quantile
from octavo.config import POLICIES
from octavo.control.cache.block_manager import BlockManager
from octavo.control.scheduler.draft import StepDraft
from octavo.control.scheduler.policy import make_policy
from octavo.control.scheduler.scheduler import Scheduler
from octavo.errors import ConfigError
from octavo.observability.process import calm_garbage_collector
from octavo.request import FinishReason, Request, Sequence
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams

MIXES = ("decode", "mixed")
KINDS = tuple(itertools.product(MIXES, POLICIES))
# Running sequences -> milliseconds that the median should stay under.
GOALS_MS = {256: 1.0, 4096: 15.0}

_BLOCK_SIZE = 16
# Beside the decodes, a step has room for so many tokens of prompts.
_PREFILL_TOKENS = 512
_MEAN_PROMPT = 128
_ENDLESS = 10**9
# More than any run comes to hold: nobody is preempted.
_BLOCKS_EACH = 96
_VOCAB_SIZE = 32_000
_NUM_WARM_UP_STEPS = 5
_NUM_KEYS, _NUM_PRIORITIES = 8, 4


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """The planning of one kind of step.

    Attributes:
        mix: "decode", every sequence decodes; "mixed", sequences end and as many new ones begin, so that
            steps hold admissions and chunks of prompts too.
        mean_sequences, mean_prefill_tokens: of the steps measured.
        wall_ms, cpu_ms: of each call of `plan_step`, by the clock and by this thread's processor time.
            They differ where something else had the core.
    """

    num_sequences: int
    mix: str
    policy: str
    mean_sequences: float
    mean_prefill_tokens: float
    wall_ms: list[float]
    cpu_ms: list[float]

    def as_json(self) -> dict[str, Any]:
        """The derived numbers, then the samples."""
        derived = {
            f"{name}_{clock}": round(value, 4)
            for clock in ("wall_ms", "cpu_ms")
            for name, value in (
                ("median", quantile(getattr(self, clock), 0.5)),
                ("p90", quantile(getattr(self, clock), 0.9)),
                ("min", min(getattr(self, clock))),
            )
        }
        samples = {name: [round(value, 4) for value in getattr(self, name)] for name in ("wall_ms", "cpu_ms")}
        return asdict(self) | derived | {"num_steps": len(self.wall_ms)} | samples


def measure_plan_step(
    num_sequences: int, *, mix: str = "decode", policy: str = "fcfs", num_steps: int = 200, seed: int = 0
) -> PlanCost:
    """Bring so many sequences to run, then time the planning of steps.

    Raises:
        ConfigError: there is no such mix or policy, or a number is below 1.
    """
    if mix not in MIXES or policy not in POLICIES:
        raise ConfigError(f"the mix is one of {', '.join(MIXES)} and the policy of {', '.join(POLICIES)}")
    if num_sequences < 1 or num_steps < 1:
        raise ConfigError("there must be at least 1 sequence and 1 step")
    drive = _Drive(num_sequences, mix=mix, policy=policy, seed=seed)
    drive.fill()
    calm_garbage_collector()  # as the engine process does
    wall_ms, cpu_ms, sizes, prefill_tokens = [], [], [], []
    for _ in range(num_steps):
        wall, cpu = time.perf_counter(), time.thread_time()
        draft = drive.scheduler.plan_step()
        cpu_ms.append((time.thread_time() - cpu) * 1e3)
        wall_ms.append((time.perf_counter() - wall) * 1e3)
        sizes.append(len(draft.slices))
        prefill_tokens.append(draft.num_prefill_tokens)
        drive.apply(draft)
    return PlanCost(
        num_sequences=num_sequences,
        mix=mix,
        policy=policy,
        mean_sequences=sum(sizes) / num_steps,
        mean_prefill_tokens=sum(prefill_tokens) / num_steps,
        wall_ms=wall_ms,
        cpu_ms=cpu_ms,
    )


def run_plan_step(
    sizes: Iterable[int], *, num_steps: int, on_done: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Every size, mix and policy, as one results file."""
    load_before = os.getloadavg()
    costs = []
    for size, (mix, policy) in itertools.product(sizes, KINDS):
        costs.append(measure_plan_step(size, mix=mix, policy=policy, num_steps=num_steps))
        if on_done is not None:
            on_done()
    return {
        "benchmark": "plan-step",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(describe_machine()),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "goals_ms": GOALS_MS,
        "costs": [cost.as_json() for cost in costs],
    }


class _Drive:
    """A scheduler with sequences that go on for ever, or end and are followed by others."""

    def __init__(self, num_sequences: int, *, mix: str, policy: str, seed: int) -> None:
        self._num_sequences = num_sequences
        # In a step no more end than its room for prompts can replace: all places stay taken.
        self._mean_output = 1.2 * num_sequences * _MEAN_PROMPT / _PREFILL_TOKENS if mix == "mixed" else None
        self._random = random.Random(seed)
        self._numbers: Iterator[int] = itertools.count()
        self.scheduler = Scheduler(
            BlockManager(num_sequences * _BLOCKS_EACH, _BLOCK_SIZE, prefix_caching=True),
            max_num_seqs=num_sequences,
            max_num_batched_tokens=num_sequences + _PREFILL_TOKENS,
            policy=make_policy(policy, {}),
        )

    def fill(self) -> None:
        """Submit the sequences, and step until all of them run and, unless they end, decode."""
        for _ in range(self._num_sequences):
            self._submit()
        num_warm = 0
        while num_warm < _NUM_WARM_UP_STEPS:
            draft = self.scheduler.plan_step()
            self.apply(draft)
            is_full = self.scheduler.roster.running.num_sequences >= 0.98 * self._num_sequences
            if is_full and (self._mean_output is not None or draft.num_prefill_tokens == 0):
                num_warm += 1

    def apply(self, draft: StepDraft) -> None:
        """What the engine does of a step: advance, append a token, end what is at its end."""
        for sequence, piece in zip(draft.sequences, draft.slices, strict=True):
            self.scheduler.roster.advance(sequence, len(piece.token_ids))
            if piece.sample is None:
                continue
            sequence.token_ids.append(self._random.randrange(_VOCAB_SIZE))
            self.scheduler.policy.charge(sequence.request, 0, 1)
            if sequence.num_output_tokens >= sequence.request.max_tokens:
                self.scheduler.roster.finish(sequence, FinishReason.LENGTH)
                self._submit()

    def _submit(self) -> None:
        number, draw = next(self._numbers), self._random
        prompt = [draw.randrange(_VOCAB_SIZE) for _ in range(self._draw_length(_MEAN_PROMPT))]
        max_tokens = _ENDLESS if self._mean_output is None else self._draw_length(self._mean_output)
        request = Request(
            request_id=str(number),
            prompt_token_ids=prompt,
            params=SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True),
            max_tokens=max_tokens,
            arrival_seconds=0.0,
            seed=number,
            arrival_index=number,
            service=ServiceParams(
                priority=draw.randrange(_NUM_PRIORITIES), fairness_key=str(number % _NUM_KEYS)
            ),
        )
        request.sequences = [Sequence(number, request, 0, list(prompt), len(prompt))]
        self.scheduler.roster.add(request)

    def _draw_length(self, mean: float) -> int:
        return 1 + round(self._random.expovariate(1 / mean))
