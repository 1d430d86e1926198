"""The seam between deciding and calculating: what crosses it, in plain integers and floats.

The control plane makes a StepPlan, an Executor turns it into a StepResult. Nothing here knows
tensors, requests or text, so a fake executor and a real one obey the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from octavo.request import TokenLogprobs
from octavo.sampling_params import SamplingParams


class CopyKind(Enum):
    """Between which pools a block's KV is copied."""

    WITHIN = "within"  # device to device: copy-on-write, and the shared part of a block
    SWAP_OUT = "swap_out"  # device to host
    SWAP_IN = "swap_in"  # host to device


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy one block's KV, in every layer, before anything of the step is written.

    Ids are of the device pool, except the target of a SWAP_OUT and the source of a SWAP_IN: those are of
    the host pool.
    """

    source_block_id: int
    target_block_id: int
    kind: CopyKind = CopyKind.WITHIN


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
        num_candidates: 0 to choose a token; more to report that many likeliest ones instead (beam
            search), scored as `Candidate` says.
    """

    params: SamplingParams
    seed: int
    position: int
    suppressed_token_ids: tuple[int, ...] = ()
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    prompt_token_ids: Sequence[int] = ()
    output_token_ids: Sequence[int] = ()
    num_candidates: int = 0


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
    prompt_logprob_targets: Sequence[int] = ()
    num_prompt_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass: first the copies, in their order, then all slices together.

    The order matters: a block may be a copy's source and, freed since, the target of a later one.
    """

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
class Candidate:
    """One way to go on after a slice.

    Attributes:
        score: natural log of the token's probability, after the request's bans, biases and penalties,
            which apply to log-probabilities here (as in transformers' beam search); not normalised again.
        logprobs: of the model's own distribution, where the client asked for them.
    """

    token_id: int
    score: float
    logprobs: TokenLogprobs | None = None


class BlockCopyError(RuntimeError):
    """A plan's copies could not be made: what its blocks hold is unknown."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a plan.

    Attributes:
        step_id: the plan's.
        tokens: sequence_id -> chosen token, for each slice with `sample` that did not fail.
        candidates: sequence_id -> likeliest tokens, best first, where `sample.num_candidates` asks for
            them (fewer where not so many can come); such a slice is not in `tokens`.
        prompt_logprobs: sequence_id -> one entry per `prompt_logprob_targets` of its slice.
        failures: sequence_id -> one line, for slices that broke on their own (a row whose logits are
            not finite, a sampler fault); the other rows are good.
        compute_seconds: time the executor spent on it, copies included.
        copy_seconds: time it spent on the block copies.
    """

    step_id: int
    tokens: dict[int, SampledToken]
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    candidates: dict[int, list[Candidate]] = field(default_factory=dict)
    compute_seconds: float = 0.0
    copy_seconds: float = 0.0


class Executor(Protocol):
    """Turns plans into results, in order. `submit` and `collect` are apart so that a plan can be in
    flight while the next one is made (overlap, pipeline stages)."""

    def submit(self, plan: StepPlan) -> None:
        """Hand over a plan. Never blocks on its computation."""

    def collect(self) -> StepResult:
        """Wait for the oldest plan in flight and return its result.

        Raises:
            BlockCopyError: the plan's copies failed.
            Exception: the pass as a whole failed, after its copies were made. The plan is then no longer
                in flight; its slices may be submitted again, in parts, without the copies: writing the
                same KV twice is harmless.
        """

    def close(self) -> None:
        """Release threads, processes and memory. Idempotent."""
