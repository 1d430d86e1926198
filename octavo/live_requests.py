"""Requests of this process that an engine works on: tokens in, text out, one step at a time.

Owns each request's text, the choice under `best_of`, and what nobody has taken of it yet; the engine
underneath knows only tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from octavo.control.cache.listing import PrefixPin
from octavo.control.decoding.best_of import best_indexes, chooses, engine_params, num_streams
from octavo.control.engine import Engine
from octavo.control.text.bad_words import bad_words_token_ids
from octavo.control.text.output_text import OutputText
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import RequestError
from octavo.outputs import CompletionOutput, RequestOutput, label_logprobs
from octavo.prompts import EncodedPrompt, Prompt, encode_prompt, pinnable_tokens
from octavo.request import FinishReason, TokenDelta
from octavo.sampling_params import SamplingParams
from octavo.service_params import DEFAULT_SERVICE, ServiceParams

# A prompt, how to decode it and, if wanted, how to serve it.
GenerationRequest = tuple[Prompt, SamplingParams] | tuple[Prompt, SamplingParams, ServiceParams]

_GOOD_ENDS = (FinishReason.STOP, FinishReason.LENGTH)


class Progress(Protocol):
    """Who is told how far many requests have come."""

    def add_tokens(self, num_tokens: int) -> None: ...

    def finish_request(self) -> None: ...


@dataclass(slots=True)
class _LiveRequest:
    """Attributes:
    output_texts, has_ended: one of each stream.
    candidates: under `best_of`, what each stream has come to.
    mailbox: pieces that came and were not taken.
    """

    prompt: EncodedPrompt
    params: SamplingParams
    output_texts: list[OutputText]
    has_ended: list[bool]
    candidates: list[CompletionOutput]
    mailbox: deque[RequestOutput] = field(default_factory=deque)


class LiveRequests:
    """Everyone who waits for a request may call `step`: what it brings is kept for those it belongs to."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, *, policy: str = "fcfs") -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._policy = policy
        self._live: dict[str, _LiveRequest] = {}
        self._request_ids = count()

    def submit(
        self, prompt: EncodedPrompt, params: SamplingParams, service: ServiceParams = DEFAULT_SERVICE
    ) -> str:
        """Queue a request; its id.

        Raises:
            RequestError: the engine will not take it, or the policy would ignore a part of `service`.
        """
        service.refuse_without_effect(self._policy)
        request_id = str(next(self._request_ids))
        self._engine.submit(
            request_id,
            prompt.token_ids,
            engine_params(params),
            bad_words_token_ids=bad_words_token_ids(self._tokenizer, params.bad_words),
            service=service,
        )
        indexes = range(num_streams(params))
        self._live[request_id] = _LiveRequest(
            prompt,
            params,
            [OutputText(self._tokenizer, params, prompt.token_ids) for _ in indexes],
            [False for _ in indexes],
            [CompletionOutput(index) for index in indexes] if chooses(params) else [],
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

    def run_each(
        self, requests: Iterable[GenerationRequest], *, max_waiting: int, progress: Progress | None = None
    ) -> Iterator[tuple[int, RequestOutput | RequestError]]:
        """Run any number of requests; each comes as soon as it is finished, with its place in `requests`.

        Args:
            requests: read only as far as there is room, so that it may be endless.
            max_waiting: sequences that may wait. One for each that runs fills the next step whatever ends
                in this one.
        """
        outputs: dict[str, tuple[int, RequestOutput]] = {}
        unread = enumerate(requests)
        has_more = True
        try:
            while has_more or outputs:
                while has_more and self._engine.num_waiting < max_waiting:
                    index, request = next(unread, (0, None))
                    if request is None:
                        has_more = False
                        break
                    try:
                        output = self._start(*request)
                    except RequestError as error:
                        yield index, error
                    else:
                        outputs[output.request_id] = (index, output)
                if outputs:
                    self.step()
                yield from self._collect(outputs, progress)
        finally:
            for request_id in outputs:
                self.abandon(request_id)

    def pin_prefix(self, prompt: EncodedPrompt, ttl_seconds: float, service: ServiceParams) -> PrefixPin:
        """Pin a prompt's KV in whole blocks, computed first as far as it is not there.

        Raises:
            RequestError: the prompt is wrong, shorter than a block, or could not be computed.
        """
        num_wanted = pinnable_tokens(len(prompt.token_ids), self._engine.limits.block_size)
        # What is there already must not go while the rest is computed.
        earlier = None
        with suppress(RequestError):  # nothing of it is
            earlier = self._pin(prompt, ttl_seconds, service)
        if earlier is not None and earlier.num_tokens >= num_wanted:
            return earlier
        try:
            self._compute(prompt, service)
            return self._pin(prompt, ttl_seconds, service)
        finally:
            if earlier is not None:
                with suppress(RequestError):  # it has expired
                    self._engine.cache.unpin(earlier.pin_id)

    def _pin(self, prompt: EncodedPrompt, ttl_seconds: float, service: ServiceParams) -> PrefixPin:
        return self._engine.cache.pin(
            prompt.token_ids, ttl_seconds=ttl_seconds, cache_salt=service.cache_salt
        )

    def _compute(self, prompt: EncodedPrompt, service: ServiceParams) -> None:
        """Have a prompt's KV computed, as a request that generates nothing."""
        params = SamplingParams(temperature=0.0, max_tokens=0, detokenize=False)
        request_id = self.submit(prompt, params, service)
        try:
            while not (pieces := list(self.take_ready(request_id))):
                self.step()
        finally:
            self.abandon(request_id)
        (output,) = pieces[-1].outputs
        if output.error is not None:
            raise RequestError(output.error, param="prompt")

    def _start(
        self, prompt: Prompt, params: SamplingParams, service: ServiceParams = DEFAULT_SERVICE
    ) -> RequestOutput:
        """Submit a request; the output that is to be filled."""
        encoded = encode_prompt(prompt, self._tokenizer)
        request_id = self.submit(encoded, params, service)
        outputs = [CompletionOutput(index) for index in range(params.n)]
        return RequestOutput(request_id, encoded.text, encoded.token_ids, None, outputs, finished=False)

    def _collect(
        self, outputs: dict[str, tuple[int, RequestOutput]], progress: Progress | None
    ) -> list[tuple[int, RequestOutput]]:
        """Add to these outputs what has come of them; those that are now finished."""
        finished = []
        for request_id, (index, output) in list(outputs.items()):
            for gained in self.take_ready(request_id):
                output.add(gained)
                if progress is not None:
                    progress.add_tokens(gained.num_generated_tokens)
            if output.finished:
                finished.append((index, output))
                del outputs[request_id]
                if progress is not None:
                    progress.finish_request()
        return finished

    def _read(self, live: _LiveRequest, delta: TokenDelta) -> RequestOutput:
        """What a delta of tokens is in text; under `best_of` nothing before the last one."""
        piece = self._read_piece(live, delta)
        is_finished = all(live.has_ended)
        outputs = [piece]
        if live.candidates:
            live.candidates[delta.index].add(piece)
            outputs = _best(live) if is_finished else []
        output = RequestOutput(
            delta.request_id,
            live.prompt.text,
            live.prompt.token_ids,
            None,
            outputs,
            finished=is_finished,
            num_cached_tokens=delta.num_cached_tokens,
            num_generated_tokens=len(piece.token_ids),
            kv_sharing=delta.sharing,
        )
        if delta.prompt_logprobs is not None:
            labelled = label_logprobs(delta.prompt_logprobs, self._tokenizer.token_text)
            output.prompt_logprobs = [None, *labelled]
        return output

    def _read_piece(self, live: _LiveRequest, delta: TokenDelta) -> CompletionOutput:
        finish_reason = delta.finish_reason
        stop_reason: str | int | None = delta.stop_reason
        output_text = live.output_texts[delta.index]
        num_earlier = output_text.num_tokens
        ends_by_text = live.params.use_beam_search and output_text.holds_stop_string(delta.token_ids)
        text_delta = output_text.push(
            delta.token_ids,
            finished=finish_reason is not None,
            ended_by_stop_token=finish_reason is FinishReason.STOP and not ends_by_text,
        )
        if text_delta.stop_string is not None:
            if finish_reason is None:
                self._engine.abort(delta.request_id, delta.index)
            finish_reason, stop_reason = FinishReason.STOP, text_delta.stop_string
        live.has_ended[delta.index] = finish_reason is not None
        # After a stop string, tokens are kept up to the one that completed it.
        num_kept = output_text.num_tokens - num_earlier
        piece = CompletionOutput(
            delta.index,
            text=text_delta.text,
            token_ids=list(delta.token_ids[:num_kept]),
            finish_reason=None if finish_reason is None else finish_reason.value,
            stop_reason=stop_reason,
            error=delta.error,
        )
        if delta.logprobs is not None:
            entries = delta.logprobs[:num_kept]
            piece.logprobs = label_logprobs(entries, self._tokenizer.token_text)
            piece.cumulative_logprob = sum(entry.logprob for entry in entries)
        return piece


def _best(live: _LiveRequest) -> list[CompletionOutput]:
    """The best of a request's candidates, numbered anew, with log-probabilities only where asked for."""
    best = [
        replace(live.candidates[chosen], index=index)
        for index, chosen in enumerate(best_indexes(list(map(_mean_logprob, live.candidates)), live.params.n))
    ]
    if live.params.logprobs is None:
        for output in best:
            output.logprobs = output.cumulative_logprob = None
    return best


def _mean_logprob(candidate: CompletionOutput) -> float | None:
    """None for what failed or was cut off: only when there is nothing else is that returned."""
    if candidate.finish_reason not in _GOOD_ENDS:
        return None
    return (candidate.cumulative_logprob or 0.0) / max(len(candidate.token_ids), 1)
