"""Request, Sequence and what they report. Plain data: the control plane writes it, clients read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from octavo.sampling_params import SamplingParams
from octavo.service_params import DEFAULT_SERVICE, ServiceParams


class SequenceStatus(Enum):
    """Where a sequence stands. Only the scheduler changes it."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"  # its blocks are gone: it is computed again
    SWAPPED = "swapped"  # its blocks are in the host pool
    FINISHED = "finished"


class FinishReason(StrEnum):
    """Why a sequence ended, in the words of the OpenAI API and some of our own."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"
    DEADLINE = "deadline"  # its time was over
    QUEUE_TIMEOUT = "queue_timeout"  # it waited too long and never began


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one place of a sequence, of the model's own distribution.

    Attributes:
        token_id: the token that stands there.
        logprob: its natural-log probability.
        rank: its place among all tokens, 1 for the likeliest.
        top_token_ids: the likeliest tokens, best first.
        top_logprobs: their log-probabilities.
    """

    token_id: int
    logprob: float
    rank: int
    top_token_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


@dataclass(slots=True, eq=False)
class Request:
    """What a client sent, once its text has become token ids.

    Attributes:
        request_id: unique among live requests.
        prompt_token_ids: at least one.
        params: how to decode.
        max_tokens: `params.max_tokens` resolved against the context (never None).
        arrival_seconds: when the engine received it, on the monotonic clock.
        arrival_index: how many requests the engine had received before it.
        seed: `params.seed`, or a drawn one; sequence i samples with `seed + i`.
        bad_words_token_ids: `params.bad_words` as token ids (text is not the engine's business).
        end_token_ids: tokens that end the output: EOS unless it is ignored, and `params.stop_token_ids`.
        service: urgency, owner and time limits.
        num_cached_tokens: prompt tokens whose KV was reused when the request began; None before that.
        sharing_total, num_sharing_steps: KV blocks saved by sharing among its sequences over those needed
            without it, summed over so many steps.
        num_candidates: for beam search: how many tokens are wanted after each beam; else 0.
        sequences: its continuations: `params.num_sequences` by choice index, or, with beam search, the
            beams that are alive.
        needs_history: whether sampling has to see its earlier tokens.
        is_plain: whether its sampling needs nothing but the parameters, once the minimum is reached.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    arrival_seconds: float
    seed: int
    arrival_index: int = 0
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    end_token_ids: frozenset[int] = frozenset()
    service: ServiceParams = DEFAULT_SERVICE
    num_cached_tokens: int | None = None
    sharing_total: float = 0.0
    num_sharing_steps: int = 0
    num_candidates: int = 0
    sequences: list[Sequence] = field(default_factory=list)
    needs_history: bool = field(init=False)
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        # Asked for each token of each sequence.
        self.needs_history = self.params.needs_history or bool(self.bad_words_token_ids)
        self.is_plain = not (self.needs_history or self.num_candidates or self.params.min_tokens)

    @property
    def sharing(self) -> float | None:
        """Mean of its steps; None for a request of one sequence."""
        return self.sharing_total / self.num_sharing_steps if self.num_sharing_steps else None

    @property
    def is_finished(self) -> bool:
        return all(sequence.is_finished for sequence in self.sequences)


@dataclass(slots=True, eq=False)
class Sequence:
    """One stream of tokens: a prompt and one continuation of it.

    Attributes:
        sequence_id: unique in the engine's life.
        request: the request that it belongs to.
        index: which of the request's continuations it is.
        token_ids: prompt and output so far; only the engine appends.
        num_prompt_tokens: how many of `token_ids` are the prompt.
        num_computed_tokens: how many of `token_ids` have their KV in the cache.
        status: written by the scheduler alone.
        num_preemptions: how often it lost its blocks or was swapped out.
        prefix_keys: keys of its whole blocks, as far as they were needed; the BlockManager's alone.
        prompt_logprobs: gathered chunk by chunk while the prompt is prefilled.
    """

    sequence_id: int
    request: Request
    index: int
    token_ids: list[int]
    num_prompt_tokens: int
    num_computed_tokens: int = 0
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    num_preemptions: int = 0
    prefix_keys: list[bytes] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens known but not yet in the cache: 1 while decoding, more while prefilling."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_finished(self) -> bool:
        return self.status is SequenceStatus.FINISHED


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """What one sequence gained in one step: the unit that travels to the client.

    Attributes:
        request_id, index: which stream.
        token_ids: new tokens, usually one; none on an abort, an error or `max_tokens=0`.
        logprobs: one entry per new token when the client asked for them.
        prompt_logprobs: with the stream's first delta, one entry per prompt token but the first.
        finish_reason: set on the stream's last delta.
        stop_reason: the stop token id that ended it (None for EOS; stop strings are found outside).
        error: one line, when finish_reason is ERROR.
        num_cached_tokens: prompt tokens of the request whose KV was reused rather than computed; the
            same in all of its deltas.
        sharing: with the stream's last delta, of a request of several sequences: KV blocks saved by
            sharing over those needed without it, mean of its steps (the vLLM paper's section 6.3).
    """

    request_id: str
    index: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    error: str | None = None
    num_cached_tokens: int = 0
    sharing: float | None = None
