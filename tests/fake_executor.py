"""An executor without a model: the next token is a hash of the whole prefix, read through the block table.

It keeps what a KV pool keeps, one token id a slot, so any stale, lost or wrongly shared block becomes a
wrong token or an error. Deterministic; obeys the same protocol as the real executor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from octavo.request import TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.step import (
    BlockCopy,
    Candidate,
    CopyKind,
    SampledToken,
    SampleRequest,
    SequenceSlice,
    StepPlan,
    StepResult,
)


class FakePlanError(AssertionError):
    """The plan broke a rule of the seam."""


class FakeExecutor:
    """Slots that hold token ids; None marks a slot that was never written or has been poisoned."""

    def __init__(self, num_blocks: int, block_size: int, vocab_size: int, num_host_blocks: int = 0) -> None:
        self.block_size = block_size
        self.vocab_size = vocab_size
        self.slots: list[list[int | None]] = [[None] * block_size for _ in range(num_blocks)]
        self.host_slots: list[list[int | None]] = [[None] * block_size for _ in range(num_host_blocks)]
        self.plans_run = 0
        self.num_tokens_computed = 0
        self.is_closed = False
        self._in_flight: deque[StepPlan] = deque()

    def submit(self, plan: StepPlan) -> None:
        self._in_flight.append(plan)

    def collect(self) -> StepResult:
        plan = self._in_flight.popleft()
        self.copy_now(plan.block_copies)
        self._write(plan)
        tokens, prompt_logprobs, candidates = {}, {}, {}
        for piece in plan.slices:
            prefix = self._read(piece, piece.start_position + len(piece.token_ids))
            if piece.prompt_logprob_targets:
                prompt_logprobs[piece.sequence_id] = [
                    fake_prompt_logprob(prefix[: piece.start_position + offset + 1], target)
                    for offset, target in enumerate(piece.prompt_logprob_targets)
                ]
            if piece.sample is not None:
                self._check_sample(piece.sample, prefix)
                if piece.sample.num_candidates:
                    candidates[piece.sequence_id] = fake_candidates(prefix, self.vocab_size, piece.sample)
                    continue
                token_id = fake_token(prefix, piece.sample.seed, self.vocab_size, piece.sample)
                logprobs = None
                if piece.sample.params.logprobs is not None:
                    logprobs = fake_prompt_logprob(prefix, token_id)
                tokens[piece.sequence_id] = SampledToken(token_id, logprobs)
        self.plans_run += 1
        self.num_tokens_computed += plan.num_tokens
        return StepResult(plan.step_id, tokens, prompt_logprobs, candidates=candidates)

    def close(self) -> None:
        self.is_closed = True

    def poison(self, block_ids: Iterable[int]) -> None:
        """Forget what these blocks hold, so that reading them is an error."""
        for block_id in block_ids:
            self.slots[block_id] = [None] * self.block_size

    def poison_host(self, block_ids: Iterable[int]) -> None:
        """The same in the host pool."""
        for block_id in block_ids:
            self.host_slots[block_id] = [None] * self.block_size

    def copy_now(self, copies: Iterable[BlockCopy]) -> None:
        """Make copies at once, in their order."""
        for copy in copies:
            sources = self.host_slots if copy.kind is CopyKind.SWAP_IN else self.slots
            targets = self.host_slots if copy.kind is CopyKind.SWAP_OUT else self.slots
            targets[copy.target_block_id] = list(sources[copy.source_block_id])

    def _write(self, plan: StepPlan) -> None:
        written: set[tuple[int, int]] = set()
        for piece in plan.slices:
            _require(bool(piece.token_ids), f"sequence {piece.sequence_id} has an empty slice")
            for offset, token_id in enumerate(piece.token_ids):
                index, slot = divmod(piece.start_position + offset, self.block_size)
                place = (piece.block_ids[index], slot)
                _require(place not in written, f"two slices write block {place[0]}, slot {place[1]}")
                written.add(place)
                self.slots[place[0]][slot] = token_id

    def _read(self, piece: SequenceSlice, num_tokens: int) -> list[int]:
        prefix: list[int | None] = []
        for block_id in piece.block_ids:
            if len(prefix) >= num_tokens:
                break
            prefix.extend(self.slots[block_id])
        del prefix[num_tokens:]
        _require(len(prefix) == num_tokens, f"sequence {piece.sequence_id}: its blocks are too few")
        _require(None not in prefix, f"sequence {piece.sequence_id} reads a slot that nobody wrote")
        return prefix  # type: ignore[return-value]

    @staticmethod
    def _check_sample(sample: SampleRequest, prefix: list[int]) -> None:
        _require(sample.position == len(prefix), f"position {sample.position} of {len(prefix)} tokens")
        if sample.params.needs_history:
            history = [*sample.prompt_token_ids, *sample.output_token_ids]
            _require(history == prefix, "the history is wrong")


class FaultyExecutor(FakeExecutor):
    """Fails the whole pass, after half of its work, whenever `is_fatal` says so of one of its slices."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        vocab_size: int,
        is_fatal: Callable[[SequenceSlice], bool],
    ) -> None:
        super().__init__(num_blocks, block_size, vocab_size)
        self.is_fatal = is_fatal

    def collect(self) -> StepResult:
        plan = self._in_flight[0]
        if any(map(self.is_fatal, plan.slices)):
            self._in_flight.popleft()
            self.copy_now(plan.block_copies)
            self._write(plan)
            raise RuntimeError("the device said no at 0x7f00")
        return super().collect()


def fake_token(prefix: Sequence[int], seed: int, vocab_size: int, sample: SampleRequest) -> int:
    """The token that follows a prefix: any change of prefix, seed or suppression changes it."""
    token_id = hash((seed, *prefix)) % vocab_size
    while token_id in sample.suppressed_token_ids:
        token_id = (token_id + 1) % vocab_size
    return token_id


def fake_candidates(prefix: Sequence[int], vocab_size: int, sample: SampleRequest) -> list[Candidate]:
    """The likeliest tokens after a prefix: their scores are a hash of it, too."""
    scored = [
        Candidate(token_id, -1.0 - (hash((token_id, *prefix)) % 100_003) / 10_000)
        for token_id in range(vocab_size)
        if token_id not in sample.suppressed_token_ids
    ]
    scored.sort(key=lambda candidate: (-candidate.score, candidate.token_id))
    return scored[: sample.num_candidates]


def fake_prompt_logprob(prefix: Sequence[int], target: int) -> TokenLogprobs:
    return TokenLogprobs(target, -float(hash(tuple(prefix)) % 1000), 1)


def reference_output(
    prompt: list[int],
    params: SamplingParams,
    *,
    max_tokens: int,
    index: int,
    vocab_size: int,
    eos_token_ids: tuple[int, ...],
) -> list[int]:
    """What one sequence of a seeded request must generate, computed with no engine at all."""
    ends = set(params.stop_token_ids) | (set() if params.ignore_eos else set(eos_token_ids))
    seed = (params.seed or 0) + index
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_tokens:
        num_output_tokens = len(tokens) - len(prompt)
        suppressed = tuple(ends) if num_output_tokens < params.min_tokens else ()
        sample = SampleRequest(params, seed, len(tokens), suppressed)
        tokens.append(fake_token(tokens, seed, vocab_size, sample))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt) :]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise FakePlanError(message)
