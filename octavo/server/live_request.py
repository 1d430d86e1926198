"""LiveRequest: one prompt on its way through the engine, and what the metrics learn of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from octavo.observability.metrics import ServerMetrics
from octavo.request import TokenDelta
from octavo.sampling_params import SamplingParams
from octavo.server.inbox import Inbox


@dataclass(slots=True)
class LiveRequest:
    """Times are monotonic seconds.

    Attributes:
        inbox, prompt_index: where its deltas go, and as whose.
        open_indexes: its streams that have not ended.
        started_seconds: when the engine began with it.
        num_output_tokens: of all its streams.
    """

    inbox: Inbox
    prompt_index: int
    num_prompt_tokens: int
    params: SamplingParams
    arrival_seconds: float
    open_indexes: set[int]
    started_seconds: float | None = None
    first_token_seconds: float | None = None
    last_token_seconds: dict[int, float] = field(default_factory=dict)
    num_output_tokens: int = 0

    def record_start(self, metrics: ServerMetrics, now: float) -> None:
        """The engine began. What a refused request asked for may be absurd, so it is counted here."""
        self.started_seconds = now
        metrics.queue_time.observe(now - self.arrival_seconds)
        metrics.request_prompt_tokens.observe(self.num_prompt_tokens)
        metrics.params_n.observe(self.params.n)
        if self.params.max_tokens is not None:
            metrics.params_max_tokens.observe(self.params.max_tokens)

    def record_tokens(self, metrics: ServerMetrics, delta: TokenDelta, now: float) -> None:
        """A delta came. `record_start` has been called."""
        if self.first_token_seconds is None:
            self.first_token_seconds = now
            metrics.time_to_first_token.observe(now - self.arrival_seconds)
            metrics.prefill_time.observe(now - (self.started_seconds or now))
            metrics.count_prompt(self.num_prompt_tokens, delta.num_cached_tokens)
        num_tokens = len(delta.token_ids)
        if num_tokens:
            self.num_output_tokens += num_tokens
            metrics.generation_tokens += num_tokens
            last = self.last_token_seconds.get(delta.index)
            if last is not None:
                metrics.inter_token_latency.observe((now - last) / num_tokens, num_tokens)
            self.last_token_seconds[delta.index] = now

    def record_end(self, metrics: ServerMetrics, now: float) -> None:
        """All its streams have ended."""
        metrics.e2e_latency.observe(now - self.arrival_seconds)
        metrics.request_generation_tokens.observe(self.num_output_tokens)
        # Beams come whole, at the end: the time between their tokens is not known here.
        if self.first_token_seconds is not None and not self.params.use_beam_search:
            decode_seconds = now - self.first_token_seconds
            metrics.decode_time.observe(decode_seconds)
            num_later = self.num_output_tokens - len(self.last_token_seconds)
            if num_later > 0:
                num_streams = len(self.last_token_seconds)
                metrics.time_per_output_token.observe(decode_seconds * num_streams / num_later)
