"""Generation: all the choices of one HTTP request, from token deltas to text deltas.

Owns the sequences' texts and stop strings, the choice under `best_of`, the counting for `usage`, and the
abort when the client leaves. Knows no wire format.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import Receive

from octavo.control.decoding.best_of import best_indexes, chooses, engine_params, mean_logprob, num_streams
from octavo.control.text.output_text import OutputText
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import OctavoError, RequestFailedError
from octavo.request import FinishReason, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.server.front import Front
from octavo.server.inbox import Inbox
from octavo.service_params import DEFAULT_SERVICE, ServiceParams


class ClientGoneError(OctavoError):
    """The client closed its connection; nobody will read an answer."""


@dataclass(slots=True)
class ChoiceDelta:
    """What one choice gained. `choice_index` is prompt_index * n + index, as in the OpenAI API."""

    choice_index: int
    prompt_index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


@dataclass(slots=True)
class _Stream:
    """One sequence's text so far, and what waits to go out: for text to go out with, or under `best_of`
    for the end of the prompt's other sequences."""

    output_text: OutputText
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


class Generation:
    """One HTTP request's prompts and choices.

    Args:
        front: where to submit.
        prompts: token ids of each prompt.
        params: how to decode; the same for each prompt.
        service: how to serve it.

    Attributes:
        num_output_tokens: generated so far, by sequences that are not returned too.
        num_cached_tokens: prompt tokens whose KV was reused.
        prompt_logprobs: by prompt index, once its first delta has come, if the params ask for them.
    """

    def __init__(
        self,
        front: Front,
        tokenizer: Tokenizer,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        bad_words_token_ids: tuple[tuple[int, ...], ...] = (),
        service: ServiceParams = DEFAULT_SERVICE,
        arrival_seconds: float | None = None,
    ) -> None:
        self.prompts = prompts
        self.params = params
        self.num_output_tokens = 0
        self.num_cached_tokens = 0
        self.prompt_logprobs: dict[int, tuple[TokenLogprobs, ...]] = {}
        self._front = front
        self._bad_words_token_ids = bad_words_token_ids
        self._service = service
        self._arrival_seconds = time.monotonic() if arrival_seconds is None else arrival_seconds
        self._inbox = Inbox()
        self._request_ids: list[str] = []
        self._seen_prompts: set[int] = set()
        self._sharing: dict[int, float] = {}
        self._streams = [
            [_Stream(OutputText(tokenizer, params, prompt)) for _ in range(num_streams(params))]
            for prompt in prompts
        ]
        self._num_open = sum(map(len, self._streams))

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def num_choices(self) -> int:
        return len(self.prompts) * self.params.n

    @property
    def kv_sharing(self) -> float | None:
        """KV blocks saved by sharing over those needed without it, mean of the prompts; None where no
        prompt had several sequences, or none has ended yet."""
        return sum(self._sharing.values()) / len(self._sharing) if self._sharing else None

    def describe(self) -> str:
        """One line for the log: sizes, how it ended, how long it took."""
        streams = [stream for each in self._streams for stream in each]
        reasons = sorted({str(stream.finish_reason or FinishReason.ABORT) for stream in streams})
        seconds = time.monotonic() - self._arrival_seconds
        return (
            f"{self.num_prompt_tokens} prompt + {self.num_output_tokens} output tokens, "
            f"{self.num_choices} choices, {'+'.join(reasons)}, {seconds:.2f} s"
        )

    async def start(self) -> None:
        """Submit all prompts and wait until the engine began with the first.

        Raises:
            OctavoError: it was refused; nothing of it goes on.
        """
        try:
            self._request_ids = self._front.submit(
                self.prompts,
                engine_params(self.params),
                self._inbox,
                bad_words_token_ids=self._bad_words_token_ids,
                service=self._service,
                arrival_seconds=self._arrival_seconds,
            )
            await self._inbox.wait_started()
        except BaseException:
            self.close()
            raise

    async def deltas(self) -> AsyncIterator[list[ChoiceDelta]]:
        """What the choices gained, step by step (of a lagging reader: several steps at once).

        Raises:
            OctavoError: the request failed; nothing of it goes on.
        """
        try:
            while self._num_open:
                gained = []
                for prompt_index, delta in await self._inbox.take():
                    gained.extend(self._push(prompt_index, delta))
                if gained:
                    yield gained
        finally:
            self.close()

    def close(self) -> None:
        """Abort whatever still runs. Idempotent."""
        for request_id in self._request_ids:
            self._front.abort(request_id)

    def abandon(self) -> None:
        """The client has left: free its blocks now and end whoever waits for its deltas."""
        self.close()
        self._inbox.fail(ClientGoneError("the client closed the connection"))

    @asynccontextmanager
    async def abandoned_on_disconnect(self, receive: Receive) -> AsyncIterator[None]:
        """Within this context, a client that disconnects ends the generation at once."""
        watcher = asyncio.create_task(self._watch(receive))
        try:
            yield
        finally:
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.abandon()

    def _push(self, prompt_index: int, delta: TokenDelta) -> list[ChoiceDelta]:
        """Take a delta of a sequence: what it gives out now."""
        stream = self._streams[prompt_index][delta.index]
        if stream.finish_reason is not None:
            return []
        self._note_prompt(prompt_index, delta)
        finish_reason = delta.finish_reason
        if finish_reason is FinishReason.ERROR:
            raise RequestFailedError(delta.error or "the request failed while it ran")
        if finish_reason is FinishReason.ABORT:
            raise RequestFailedError("the engine gave the request up")
        num_earlier = stream.output_text.num_tokens
        ends_by_text = self.params.use_beam_search and stream.output_text.holds_stop_string(delta.token_ids)
        text_delta = stream.output_text.push(
            delta.token_ids,
            finished=finish_reason is not None,
            ended_by_stop_token=finish_reason is FinishReason.STOP and not ends_by_text,
        )
        stop_reason: str | int | None = delta.stop_reason
        if text_delta.stop_string is not None:
            stop_reason = text_delta.stop_string
            if finish_reason is None:
                self._front.abort(self._request_ids[prompt_index], delta.index, reason=FinishReason.STOP)
            finish_reason = FinishReason.STOP
        # After a stop string, tokens are kept up to the one that completed it.
        num_kept = stream.output_text.num_tokens - num_earlier
        self.num_output_tokens += num_kept
        stream.token_ids.extend(delta.token_ids[:num_kept])
        if delta.logprobs is not None:
            stream.logprobs.extend(delta.logprobs[:num_kept])
        if finish_reason is not None:
            stream.finish_reason, stream.stop_reason = finish_reason, stop_reason
            self._num_open -= 1
        if chooses(self.params):
            return self._choose(prompt_index)
        if finish_reason is None and not text_delta.text:
            return []  # text is held back; its tokens and logprobs go out with it
        return [self._give_out(prompt_index, delta.index, stream, text_delta.text)]

    def _note_prompt(self, prompt_index: int, delta: TokenDelta) -> None:
        """What a delta tells about its prompt as a whole."""
        if prompt_index not in self._seen_prompts:
            self._seen_prompts.add(prompt_index)
            self.num_cached_tokens += delta.num_cached_tokens
        if delta.prompt_logprobs:  # only the sequence that computed the prompt has them
            self.prompt_logprobs[prompt_index] = delta.prompt_logprobs
        if delta.sharing is not None:
            self._sharing[prompt_index] = delta.sharing

    def _choose(self, prompt_index: int) -> list[ChoiceDelta]:
        """The best of a prompt's sequences, whole, once all have ended."""
        streams = self._streams[prompt_index]
        if any(stream.finish_reason is None for stream in streams):
            return []
        means = [mean_logprob(entry.logprob for entry in stream.logprobs) for stream in streams]
        return [
            self._give_out(prompt_index, index, streams[best], streams[best].output_text.text)
            for index, best in enumerate(best_indexes(means, self.params.n))
        ]

    def _give_out(self, prompt_index: int, index: int, stream: _Stream, text: str) -> ChoiceDelta:
        gained = ChoiceDelta(
            prompt_index * self.params.n + index,
            prompt_index,
            text,
            tuple(stream.token_ids),
            () if self.params.logprobs is None else tuple(stream.logprobs),
            stream.finish_reason,
            stream.stop_reason,
        )
        stream.token_ids.clear()
        stream.logprobs.clear()
        return gained
