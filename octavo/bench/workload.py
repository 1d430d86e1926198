"""Seeded workloads: the same numbers give the same requests on every machine. No tensor library."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError
from octavo.sampling_params import SamplingParams

TRACES = ("exponential", "sharegpt", "alpaca")  # see traces.py


@dataclass(frozen=True, kw_only=True)
class WorkloadSpec:
    """What is asked of the engine."""

    num_requests: int = setting(64, "requests, all submitted at once", parse=int, metavar="N")
    seed: int = setting(0, "of the random lengths and tokens", parse=int, metavar="N")
    mean_prompt: int = setting(128, "mean prompt length (exponential)", parse=parse_tokens, metavar="TOKENS")
    min_prompt: int = setting(4, "shortest prompt", parse=parse_tokens, metavar="TOKENS")
    max_prompt: int = setting(1024, "longest prompt", parse=parse_tokens, metavar="TOKENS")
    mean_output: int = setting(128, "mean output length (exponential)", parse=parse_tokens, metavar="TOKENS")
    min_output: int = setting(4, "shortest output", parse=parse_tokens, metavar="TOKENS")
    max_output: int = setting(512, "longest output", parse=parse_tokens, metavar="TOKENS")

    def __post_init__(self) -> None:
        if self.num_requests < 1:
            raise ConfigError(f"--num-requests must be at least 1, not {self.num_requests}")
        for what in ("prompt", "output"):
            mean, low, high = (getattr(self, f"{kind}_{what}") for kind in ("mean", "min", "max"))
            if not 1 <= low <= high:
                raise ConfigError(f"--min-{what} ({low}) must be from 1 to --max-{what} ({high})")
            if mean < 1:
                raise ConfigError(f"--mean-{what} must be at least 1, not {mean}")


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """One request: greedy, and exactly `params.max_tokens` long because it ignores EOS."""

    prompt_token_ids: list[int]
    params: SamplingParams


def make_workload(spec: WorkloadSpec, ordinary_token_ids: Sequence[int]) -> list[WorkloadRequest]:
    """Draw the requests. Lengths do not depend on the vocabulary: only the tokens do.

    Args:
        ordinary_token_ids: what prompts are made of: no special tokens.
    """
    lengths = random.Random(spec.seed)
    tokens = random.Random(spec.seed + 1)
    requests = []
    for _ in range(spec.num_requests):
        num_prompt_tokens = _draw(lengths, spec.mean_prompt, spec.min_prompt, spec.max_prompt)
        num_output_tokens = _draw(lengths, spec.mean_output, spec.min_output, spec.max_output)
        params = SamplingParams(temperature=0.0, max_tokens=num_output_tokens, ignore_eos=True)
        requests.append(WorkloadRequest(tokens.choices(ordinary_token_ids, k=num_prompt_tokens), params))
    return requests


def _draw(source: random.Random, mean: int, low: int, high: int) -> int:
    return max(low, min(high, round(source.expovariate(1 / mean))))
