"""A step in the making: the token budget, the slices so far, and what the engine must know of them.

Owns the shape of slices and sample requests. Decides nothing and touches no cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from octavo.request import Sequence
from octavo.step import BlockCopy, SampleRequest, SequenceSlice, StepPlan


@dataclass(slots=True, eq=False)
class StepDraft:
    """One step while the scheduler fills it, and what it came to.

    Attributes:
        step_id: the coming plan's.
        token_budget: tokens that may still be added.
        sequences: whose slices these are, in the same order.
        moved: sequences whose KV the copies move and that have no slice.
        num_prefill_tokens, num_decode_tokens: the slices' tokens; a decode follows a sampled token.
        num_preemptions: sequences that lost their blocks for this step, or were swapped out.
        faults: sequences that could not be planned, each with one line saying why.
    """

    step_id: int
    token_budget: int
    slices: list[SequenceSlice] = field(default_factory=list)
    block_copies: list[BlockCopy] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)
    moved: list[Sequence] = field(default_factory=list)
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_preemptions: int = 0
    faults: list[tuple[Sequence, str]] = field(default_factory=list)

    @property
    def plan(self) -> StepPlan:
        return StepPlan(self.step_id, self.slices, self.block_copies)

    def add(self, sequence: Sequence, piece: SequenceSlice) -> None:
        num_tokens = len(piece.token_ids)
        self.token_budget -= num_tokens
        self.slices.append(piece)
        self.sequences.append(sequence)
        if piece.start_position >= sequence.num_prompt_tokens and num_tokens == 1:
            self.num_decode_tokens += 1
        else:
            self.num_prefill_tokens += num_tokens

    def count_decodes(self, num_decodes: int) -> None:
        """Take in the counts of decodes that were appended to `slices` and `sequences` without `add`."""
        self.token_budget -= num_decodes
        self.num_decode_tokens += num_decodes


def decode_slice(sequence: Sequence, block_ids: list[int]) -> SequenceSlice:
    """The slice of a sequence's last token, which was sampled: the quick way for most."""
    request = sequence.request
    token_ids = sequence.token_ids
    num_tokens = len(token_ids)
    if request.is_plain:
        sample = SampleRequest(request.params, request.seed + sequence.index, num_tokens)
    else:
        sample = _sample_request(sequence)
    return SequenceSlice(sequence.sequence_id, token_ids[-1:], num_tokens - 1, block_ids, sample)


def slice_for(sequence: Sequence, num_tokens: int, block_ids: list[int]) -> SequenceSlice:
    """The slice of the next `num_tokens` uncomputed tokens; it samples if it reaches the last known."""
    start = sequence.num_computed_tokens
    end = start + num_tokens
    request = sequence.request
    sample = None
    if end == len(sequence.token_ids) and request.max_tokens:
        sample = _sample_request(sequence)
    if request.params.prompt_logprobs is None or start >= sequence.num_prompt_tokens:
        return SequenceSlice(sequence.sequence_id, sequence.token_ids[start:end], start, block_ids, sample)
    return SequenceSlice(
        sequence.sequence_id,
        sequence.token_ids[start:end],
        start,
        block_ids,
        sample,
        _prompt_logprob_targets(sequence, start, end),
        request.params.prompt_logprobs,
    )


def prompt_logprobs_border(sequence: Sequence) -> int | None:
    """Where a slice has to end so that no prompt log-probability is gathered twice, or None.

    A slice reports targets for its first tokens or for none. A sequence that lost its blocks half-way
    through its prompt recomputes up to here first: `prompt_logprobs` says how far it had come.
    """
    num_gathered = len(sequence.prompt_logprobs)
    if sequence.request.params.prompt_logprobs is None or num_gathered >= sequence.num_prompt_tokens - 1:
        return None
    return num_gathered if sequence.num_computed_tokens < num_gathered else None


def _prompt_logprob_targets(sequence: Sequence, start: int, end: int) -> list[int]:
    """The prompt token after each of the slice's tokens, unless they have been gathered before."""
    if start < len(sequence.prompt_logprobs):
        return []
    return sequence.token_ids[start + 1 : min(end + 1, sequence.num_prompt_tokens)]


def _sample_request(sequence: Sequence) -> SampleRequest:
    request = sequence.request
    params = request.params
    seed = request.seed + sequence.index
    num_tokens = len(sequence.token_ids)
    num_output_tokens = num_tokens - sequence.num_prompt_tokens
    suppressed = tuple(sorted(request.end_token_ids)) if num_output_tokens < params.min_tokens else ()
    sample = SampleRequest(params, seed, num_tokens, suppressed, num_candidates=request.num_candidates)
    if request.needs_history:
        sample.bad_words_token_ids = request.bad_words_token_ids
        sample.prompt_token_ids = request.prompt_token_ids
        sample.output_token_ids = sequence.token_ids[sequence.num_prompt_tokens :]
    return sample
