"""The seam between deciding and calculating: what crosses it, in plain integers and floats.

The control plane makes a StepPlan, an Executor turns it into a StepResult. Nothing here knows
tensors, requests or text, so a fake executor and a real one obey the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from octavo.request import TokenLogprobs
from octavo.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy one block's KV, in every layer, before anything of the step is written."""

    source_block_id: int
    target_block_id: int


@dataclass(slots=True)  # not frozen: hundreds are made in every step, and freezing doubles the cost
class SampleRequest:
    """How to choose the token that follows a slice.

    Attributes:
        params: the client's wishes.
        seed: key of the counter-based generator; the same tokens come out in any batch.
        position: index in the sequence of the token being sampled: the generator's counter.
        suppressed_token_ids: tokens that may not come now (EOS and stops before `min_tokens`).
        bad_words_token_ids: token sequences that may not be completed.
        prompt_token_ids, output_token_ids: the history, only where `params.needs_history`.
    """

    params: SamplingParams
    seed: int
    position: int
    suppressed_token_ids: tuple[int, ...] = ()
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    prompt_token_ids: list[int] = field(default_factory=list)
    output_token_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)  # not frozen: see SampleRequest
class SequenceSlice:
    """A run of one sequence's tokens to push through the model in this step.

    Attributes:
        sequence_id: whose.
        token_ids: the tokens, at least one. Their KV is written in this step.
        start_position: position of the first; all earlier positions are already in the cache.
        block_ids: the sequence's block table; covers `start_position + len(token_ids)` slots.
            Position p lives in block `block_ids[p // block_size]`, slot `p % block_size`.
        sample: how to choose the next token after the last of the slice; None for a chunk that does
            not reach the end of what is known.
        prompt_logprob_targets: for prompt_logprobs: the prompt token that follows each of the
            slice's first `len(prompt_logprob_targets)` tokens; empty when not asked for.
        num_prompt_logprobs: how many likeliest tokens to report at each of those places.
    """

    sequence_id: int
    token_ids: list[int]
    start_position: int
    block_ids: list[int]
    sample: SampleRequest | None = None
    prompt_logprob_targets: list[int] = field(default_factory=list)
    num_prompt_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass: first the copies, then all slices together."""

    step_id: int
    slices: list[SequenceSlice]
    block_copies: list[BlockCopy] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return sum(len(piece.token_ids) for piece in self.slices)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The token chosen after a slice; `logprobs` where the client asked for them."""

    token_id: int
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a plan.

    Attributes:
        step_id: the plan's.
        tokens: sequence_id -> chosen token, for each slice with `sample` that did not fail.
        prompt_logprobs: sequence_id -> one entry per `prompt_logprob_targets` of its slice.
        failures: sequence_id -> one line, for slices that broke on their own (a row whose logits are
            not finite, a sampler fault); the other rows are good.
        compute_seconds: time the executor spent on it.
    """

    step_id: int
    tokens: dict[int, SampledToken]
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    compute_seconds: float = 0.0


class Executor(Protocol):
    """Turns plans into results, in order. `submit` and `collect` are apart so that a plan can be in
    flight while the next one is made (overlap, pipeline stages)."""

    def submit(self, plan: StepPlan) -> None:
        """Hand over a plan. Never blocks on its computation."""

    def collect(self) -> StepResult:
        """Wait for the oldest plan in flight and return its result.

        Raises:
            Exception: the pass as a whole failed. The plan is then no longer in flight, and may be
                submitted again, whole or in parts: writing the same KV twice is harmless.
        """

    def close(self) -> None:
        """Release threads, processes and memory. Idempotent."""
