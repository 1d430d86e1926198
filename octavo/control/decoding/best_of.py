"""best_of: which of the sequences that the engine generated are returned, and in which order.

The engine streams all of them; whoever follows the streams chooses here, server and offline alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence as ReadOnlySequence
from dataclasses import replace

from octavo.errors import RequestError
from octavo.sampling_params import SamplingParams


def chooses(params: SamplingParams) -> bool:
    """Whether fewer sequences are returned than are streamed. Beam search chooses in the engine."""
    return not params.use_beam_search and params.num_sequences > params.n


def num_streams(params: SamplingParams) -> int:
    """How many streams of tokens, with indexes from 0, the engine makes of a request."""
    return params.n if params.use_beam_search else params.num_sequences


def engine_params(params: SamplingParams) -> SamplingParams:
    """What to ask of the engine: log-probabilities too, where it takes them to choose."""
    return replace(params, logprobs=0) if chooses(params) and params.logprobs is None else params


def check_streamable(params: SamplingParams) -> None:
    """Raises RequestError: what is returned is known only when everything has been generated."""
    if chooses(params):
        raise RequestError(
            f"best_of ({params.best_of}) above n ({params.n}) cannot be streamed: the best are known only "
            "at the end",
            param="best_of",
        )
    if params.use_beam_search:
        raise RequestError(
            "beam search cannot be streamed: its continuations are known only at the end",
            param="use_beam_search",
        )


def mean_logprob(logprobs: Iterable[float]) -> float:
    """Log-probability per token, by which sequences of different lengths are compared; 0 without tokens."""
    values = list(logprobs)
    return math.fsum(values) / len(values) if values else 0.0


def best_indexes(mean_logprobs: ReadOnlySequence[float | None], n: int) -> list[int]:
    """Indexes of the `n` best sequences, best first; among equals, and under greedy decoding all are,
    the lowest index first. None stands for a sequence that failed: it comes after all others.
    """

    def order(index: int) -> tuple[bool, float, int]:
        mean = mean_logprobs[index]
        if mean is None or math.isnan(mean):
            return (True, 0.0, index)
        return (False, -mean, index)

    return sorted(range(len(mean_logprobs)), key=order)[:n]
