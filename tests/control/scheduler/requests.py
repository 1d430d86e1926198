"""Requests as the engine makes them, for tests that need no engine."""

from __future__ import annotations

import itertools
from typing import Any

from octavo.request import Request, Sequence
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams

_indexes = itertools.count()


def make_request(
    prompt: list[int] | None = None,
    *,
    params: SamplingParams | None = None,
    max_tokens: int = 8,
    arrival_seconds: float = 0.0,
    **service: Any,
) -> Request:
    """A request that has just arrived, after all that were made before it."""
    prompt, params = prompt or [1, 2, 3], params or SamplingParams()
    number = next(_indexes)
    request = Request(
        f"r{number}",
        prompt,
        params,
        max_tokens,
        arrival_seconds,
        seed=0,
        arrival_index=number,
        service=ServiceParams(**service),
    )
    count = 1 if params.use_beam_search else params.num_sequences
    request.sequences = [
        Sequence(1000 * number + index, request, index, list(prompt), len(prompt)) for index in range(count)
    ]
    return request


def add_beam(request: Request) -> Sequence:
    """One more beam, as a fork makes it."""
    first = request.sequences[0]
    beam = Sequence(
        first.sequence_id + len(request.sequences),
        request,
        0,
        list(first.token_ids),
        first.num_prompt_tokens,
        num_computed_tokens=first.num_computed_tokens,
        status=first.status,
    )
    request.sequences.append(beam)
    return beam
