"""What offline generation returns, under vLLM's names. Plain data; computes nothing but sums.

The same classes carry a finished answer and, while streaming, what an answer gained in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from octavo.request import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability at one place.

    Attributes:
        logprob: natural log, of the model's own distribution.
        rank: its place among all tokens, 1 for the likeliest.
        decoded_token: the token's text.
    """

    logprob: float
    rank: int
    decoded_token: str


LogprobsByToken = dict[int, Logprob]


@dataclass(slots=True)
class CompletionOutput:
    """One continuation of a prompt.

    Attributes:
        index: which of the request's `n` continuations.
        text: its text, cut before a stop string.
        token_ids: its tokens; with a stop string, up to and with the token that completed it.
        cumulative_logprob: sum over `token_ids`; None unless `logprobs` were asked for.
        logprobs: one entry per token: the token itself and the likeliest ones; None unless asked for.
        finish_reason: "stop", "length", "abort", "error", "deadline" or "queue_timeout"; None while it is
            being generated.
        stop_reason: the stop string or stop token id that ended it; None for EOS and for lengths.
        error: one line, where `finish_reason` is one of the last three.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[LogprobsByToken] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    error: str | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None

    def add(self, gained: CompletionOutput) -> None:
        """Append what a stream brought of this continuation."""
        self.text += gained.text
        self.token_ids.extend(gained.token_ids)
        if gained.logprobs is not None:
            if self.logprobs is None:
                self.logprobs = []
            self.logprobs.extend(gained.logprobs)
            self.cumulative_logprob = (self.cumulative_logprob or 0.0) + (gained.cumulative_logprob or 0.0)
        self.finish_reason = gained.finish_reason
        self.stop_reason = gained.stop_reason
        self.error = gained.error


@dataclass(slots=True)
class RequestOutput:
    """One prompt and its continuations.

    Attributes:
        request_id: unique in one `LLM`'s life.
        prompt: the prompt's text; None where token ids were given.
        prompt_token_ids: the tokens that were computed.
        prompt_logprobs: one entry per prompt token, None for the first; None unless asked for.
        outputs: the continuations, by index: in the order of their seeds, or, where `best_of` or beam
            search chose them, best first. In a stream: only those that gained something.
        finished: whether all continuations have ended.
        num_cached_tokens: prompt tokens whose KV was reused rather than computed.
        num_generated_tokens: tokens generated for the request, with `best_of` also those not returned.
        kv_sharing: of a request of several sequences, KV blocks saved by sharing over those needed without
            it, mean of its steps; None for others.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[LogprobsByToken | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    kv_sharing: float | None = None

    def add(self, gained: RequestOutput) -> None:
        """Append what a stream brought. Needs all of the continuations in `outputs`."""
        self.finished = self.finished or gained.finished
        self.num_cached_tokens = max(self.num_cached_tokens, gained.num_cached_tokens)
        self.num_generated_tokens += gained.num_generated_tokens
        if gained.kv_sharing is not None:
            self.kv_sharing = gained.kv_sharing
        if self.prompt_logprobs is None:
            self.prompt_logprobs = gained.prompt_logprobs
        for piece in gained.outputs:
            self.outputs[piece.index].add(piece)


def label_logprobs(
    entries: Sequence[TokenLogprobs], token_text: Callable[[int], str]
) -> list[LogprobsByToken]:
    """The engine's log-probabilities with token texts: the token that stands there first, then the
    likeliest ones, best first."""
    return [_label(entry, token_text) for entry in entries]


def _label(entry: TokenLogprobs, token_text: Callable[[int], str]) -> LogprobsByToken:
    labelled = {entry.token_id: Logprob(entry.logprob, entry.rank, token_text(entry.token_id))}
    for rank, (token_id, logprob) in enumerate(
        zip(entry.top_token_ids, entry.top_logprobs, strict=True), start=1
    ):
        labelled.setdefault(token_id, Logprob(logprob, rank, token_text(token_id)))
    return labelled
