"""Requests of the experiments: seeded prompts and lengths, and when each is due. Pure Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from octavo.bench.experiments.experiment import Setup, TimedRequest, Vocabulary
from octavo.bench.experiments.lengths import ANYSCALE_MEAN, arrival_seconds, capped_exponential
from octavo.bench.targets.target import BenchRequest

# Lengths of one request: prompt and output tokens.
DrawLengths = Callable[[random.Random], tuple[int, int]]


def make_load(
    vocabulary: Vocabulary,
    draw_lengths: DrawLengths,
    *,
    num_requests: int,
    seed: int,
    rate: float | None = None,
    shape: float = 1.0,
    prefix: Sequence[int] = (),
) -> list[TimedRequest]:
    """Requests in order of arrival.

    Args:
        rate: requests a second; None sends all at once.
        shape: of the gamma-distributed gaps; 1 for Poisson arrivals.
        prefix: tokens that every prompt begins with.
    """
    lengths, tokens, gaps = (random.Random(f"{seed}/{what}") for what in ("lengths", "tokens", "gaps"))
    if rate is None:
        due = [0.0] * num_requests
    else:
        due = arrival_seconds(gaps, rate=rate, shape=shape, count=num_requests)
    load = []
    for number, due_seconds in enumerate(due):
        num_prompt, num_output = fit(*draw_lengths(lengths), vocabulary.max_model_len - len(prefix))
        prompt = [*prefix, *tokens.choices(vocabulary.token_ids, k=num_prompt)]
        request = BenchRequest(
            request_id=f"r{number}",
            prompt_token_ids=prompt,
            prompt_text=vocabulary.decode(prompt),
            num_output_tokens=num_output,
        )
        load.append(TimedRequest(due_ns=round(due_seconds * 1e9), request=request))
    return load


def turned(load: Sequence[TimedRequest], by: int, vocabulary: Vocabulary) -> list[TimedRequest]:
    """The same lengths and arrivals, every prompt turned round by so many tokens.

    It begins differently, so that nothing of it is found in a prefix cache; what prompts have in common
    stays common.
    """
    if by == 0:
        return list(load)
    found = []
    for one in load:
        prompt = list(one.request.prompt_token_ids)
        by_here = by % len(prompt)
        prompt = prompt[by_here:] + prompt[:by_here]
        request = replace(one.request, prompt_token_ids=prompt, prompt_text=vocabulary.decode(prompt))
        found.append(replace(one, request=request))
    return found


def fit(num_prompt: int, num_output: int, longest: int) -> tuple[int, int]:
    """Lengths cut to a context: the output first keeps at most half of it."""
    num_output = max(1, min(num_output, longest // 2))
    return max(1, min(num_prompt, longest - num_output)), num_output


def anyscale_lengths(setup: Setup, *, cap: int, prompt: tuple[int, int]) -> DrawLengths:
    """Prompts uniform between two lengths, outputs capped exponential of mean 128; all times the scale."""
    scale = setup.extent.length_scale
    low, high = (max(1, round(end * scale)) for end in prompt)
    mean, most = max(1.0, ANYSCALE_MEAN * scale), max(1, round(cap * scale))

    def draw(source: random.Random) -> tuple[int, int]:
        return source.randint(low, high), capped_exponential(source, mean=mean, cap=most)

    return draw


def scale_note(setup: Setup) -> str:
    """For figures: what was done to the lengths."""
    scale = setup.extent.length_scale
    return "" if scale == 1 else f"all lengths × {scale:g}"
