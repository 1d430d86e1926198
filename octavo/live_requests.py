"""Requests of this process that an engine works on: tokens in, text out, one step at a time.

Owns each request's text and what nobody has taken of it yet; the engine underneath knows only tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from octavo.control.engine import Engine
from octavo.control.text.bad_words import bad_words_token_ids
from octavo.control.text.output_text import OutputText
from octavo.control.text.tokenizer import Tokenizer
from octavo.outputs import CompletionOutput, RequestOutput, label_logprobs
from octavo.request import FinishReason, TokenDelta
from octavo.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the engine takes it; `text` is None where only token ids were given."""

    text: str | None
    token_ids: list[int]


@dataclass(slots=True)
class _LiveRequest:
    """Attributes:
    output_texts, has_ended: one of each continuation.
    mailbox: pieces that came and were not taken.
    """

    prompt: EncodedPrompt
    output_texts: list[OutputText]
    has_ended: list[bool]
    mailbox: deque[RequestOutput]


class LiveRequests:
    """Everyone who waits for a request may call `step`: what it brings is kept for those it belongs to."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._live: dict[str, _LiveRequest] = {}
        self._request_ids = count()

    def submit(self, prompt: EncodedPrompt, params: SamplingParams) -> str:
        """Queue a request; its id.

        Raises:
            RequestError: the engine will not take it.
        """
        request_id = str(next(self._request_ids))
        self._engine.submit(
            request_id,
            prompt.token_ids,
            params,
            bad_words_token_ids=bad_words_token_ids(self._tokenizer, params.bad_words),
        )
        self._live[request_id] = _LiveRequest(
            prompt,
            [OutputText(self._tokenizer, params, prompt.token_ids) for _ in range(params.n)],
            [False] * params.n,
            deque(),
        )
        return request_id

    def step(self) -> None:
        """One step of the engine."""
        for delta in self._engine.step():
            live = self._live.get(delta.request_id)
            if live is not None and not live.has_ended[delta.index]:
                live.mailbox.append(self._read(live, delta))

    def take_ready(self, request_id: str) -> Iterator[RequestOutput]:
        """The pieces that have come of a request since they were last taken. With the last piece the
        request is forgotten."""
        live = self._live[request_id]
        while live.mailbox:
            piece = live.mailbox.popleft()
            if piece.finished:
                del self._live[request_id]
            yield piece

    def abandon(self, request_id: str) -> None:
        """Forget a request, and abort it if it still runs. What is not known (any more) is ignored."""
        if self._live.pop(request_id, None) is not None:
            self._engine.abort(request_id)

    def _read(self, live: _LiveRequest, delta: TokenDelta) -> RequestOutput:
        """What a delta of tokens is in text."""
        token_text = self._tokenizer.token_text
        finish_reason = delta.finish_reason
        stop_reason: str | int | None = delta.stop_reason
        text_delta = live.output_texts[delta.index].push(
            delta.token_ids,
            finished=finish_reason is not None,
            ended_by_stop_token=finish_reason is FinishReason.STOP,
        )
        if text_delta.stop_string is not None:
            if finish_reason is None:
                self._engine.abort(delta.request_id, delta.index)
            finish_reason, stop_reason = FinishReason.STOP, text_delta.stop_string
        live.has_ended[delta.index] = finish_reason is not None
        piece = CompletionOutput(
            delta.index,
            text=text_delta.text,
            token_ids=list(delta.token_ids),
            finish_reason=None if finish_reason is None else finish_reason.value,
            stop_reason=stop_reason,
            error=delta.error,
        )
        if delta.logprobs is not None:
            piece.logprobs = label_logprobs(delta.logprobs, token_text)
            piece.cumulative_logprob = sum(entry.logprob for entry in delta.logprobs)
        output = RequestOutput(
            delta.request_id,
            live.prompt.text,
            live.prompt.token_ids,
            None,
            [piece],
            finished=all(live.has_ended),
            num_cached_tokens=delta.num_cached_tokens,
        )
        if delta.prompt_logprobs is not None:
            output.prompt_logprobs = [None, *label_logprobs(delta.prompt_logprobs, token_text)]
        return output
