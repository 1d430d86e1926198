"""Front: the requests that the server has accepted, and the engine's state as far as it is known.

Submits, routes deltas to inboxes, aborts; answers what health asks, from memory. Knows no HTTP and
no text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from octavo.errors import (
    ContextLengthError,
    EngineUnavailableError,
    OctavoError,
    OverloadedError,
    RequestError,
    RequestFailedError,
)
from octavo.messages import (
    AbortRequest,
    EngineFailed,
    EngineIdle,
    EngineReady,
    RequestRefused,
    StepFinished,
    StepStarted,
    StepStats,
    SubmitRequest,
    ToEngine,
)
from octavo.observability.metrics import CacheFacts, ServerMetrics
from octavo.request import FinishReason, TokenDelta
from octavo.sampling_params import SamplingParams
from octavo.server.inbox import Inbox

# A step may take three times what was expected, plus this, before the engine counts as hung. With the
# probe's own delay it stays under the two seconds within which a hung server must say so.
HANG_GRACE_SECONDS = 1.2
HANG_FACTOR = 3.0


class EngineState(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(slots=True)
class LiveRequest:
    """One prompt on its way through the engine, with its times for the metrics (monotonic seconds)."""

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


class Front:
    """Accepted requests, by id.

    Args:
        send: delivers a message to the engine.
        metrics: where what happens is counted.
        max_unstarted: prompts that may wait for their first step before new ones are refused unread.
        on_engine_end: called once with the reason, when the engine failed or is lost.
    """

    def __init__(
        self,
        send: Callable[[ToEngine], None],
        metrics: ServerMetrics,
        *,
        max_unstarted: int,
        on_engine_end: Callable[[EngineFailed | None], None],
    ) -> None:
        self.state = EngineState.STARTING
        self.facts: EngineReady | None = None
        self.metrics = metrics
        self._send = send
        self._max_unstarted = max_unstarted
        self._on_engine_end = on_engine_end
        self._live: dict[str, LiveRequest] = {}
        self._num_unstarted = 0
        self._num_submitted = 0
        self._answer_due_seconds: float | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._loaded: asyncio.Event = asyncio.Event()

    # ---- what health asks -------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        return self.state is not EngineState.DEAD

    @property
    def is_ready(self) -> bool:
        return self.state is EngineState.READY and not self.is_hung

    @property
    def is_hung(self) -> bool:
        """Whether the engine owes an answer for longer than it can reasonably need."""
        return self._answer_due_seconds is not None and time.monotonic() > self._answer_due_seconds

    @property
    def is_full(self) -> bool:
        return self._num_unstarted >= self._max_unstarted

    @property
    def num_live(self) -> int:
        return len(self._live)

    # ---- requests ---------------------------------------------------------------------------------

    def admit(self) -> EngineReady:
        """Whether a request may come in at all: asked before any work is done for it.

        Raises:
            EngineUnavailableError, OverloadedError.
        """
        if self.state is EngineState.STARTING:
            raise EngineUnavailableError("the model is still loading; try again in a moment")
        if self.state is EngineState.DRAINING:
            raise EngineUnavailableError("the server is shutting down and takes no new requests")
        if self.state is EngineState.DEAD or self.facts is None:
            raise EngineUnavailableError("the engine has failed and the server is about to end")
        if self.is_full:
            self.metrics.rejected["queue_full"] += 1
            raise OverloadedError(
                f"the queue is full ({self._num_unstarted} requests wait); try again shortly",
                retry_after_seconds=1.0,
            )
        return self.facts

    def submit(
        self,
        prompt_token_ids: list[int],
        params: SamplingParams,
        inbox: Inbox,
        *,
        prompt_index: int = 0,
        bad_words_token_ids: tuple[tuple[int, ...], ...] = (),
        arrival_seconds: float,
    ) -> str:
        """Send one prompt to the engine. Its deltas come to `inbox`, marked `prompt_index`.

        Returns:
            The request's id, for `abort`.

        Raises:
            EngineUnavailableError, OverloadedError: as `admit`.
        """
        self.admit()
        self._num_submitted += 1
        request_id = str(self._num_submitted)
        self._send(SubmitRequest(request_id, prompt_token_ids, params, bad_words_token_ids))
        self._live[request_id] = LiveRequest(
            inbox, prompt_index, len(prompt_token_ids), params, arrival_seconds, set(range(params.n))
        )
        self._num_unstarted += 1
        self._await_answer()
        return request_id

    def abort(
        self, request_id: str, index: int | None = None, *, reason: FinishReason = FinishReason.ABORT
    ) -> None:
        """Stop a request, or one of its sequences. What has already ended is left alone.

        Args:
            reason: what to count it as: a stop string that was found ends a sequence as STOP.
        """
        live = self._live.get(request_id)
        if live is None or (index is not None and index not in live.open_indexes):
            return
        indexes = set(live.open_indexes) if index is None else {index}
        self._send(AbortRequest(request_id, index))
        self._await_answer()
        for ended in indexes:
            self._close_sequence(request_id, live, ended, reason)

    async def wait_loaded(self) -> EngineReady:
        """Until the engine has its model; what it turned out to be."""
        await self._loaded.wait()
        if self.facts is None:
            raise EngineUnavailableError("the engine ended before it was ready")
        return self.facts

    def open(self) -> None:
        """Everything is loaded: take requests."""
        if self.state is EngineState.STARTING:
            self.state = EngineState.READY

    async def drain(self, timeout_seconds: float) -> None:
        """Take nothing new; wait for what runs; end what is left with an explicit error."""
        self.state = EngineState.DRAINING
        if self._live:
            self._drained.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._drained.wait()
            except TimeoutError:
                self._fail_all(
                    EngineUnavailableError(
                        f"the server shut down before this request ended (it waited {timeout_seconds:g} s)"
                    )
                )

    # ---- what the engine says ---------------------------------------------------------------------

    def receive(self, message: object) -> None:
        """Take one message from the engine."""
        if isinstance(message, StepFinished):
            self._finish_step(message)
        elif isinstance(message, StepStarted):
            self._expect_answer(message.expected_seconds)
        elif isinstance(message, EngineIdle):
            self._record_state(message.stats)
            self._answer_due_seconds = None
            if self._live:  # they were submitted while the idle message was on its way
                self._expect_answer()
        elif isinstance(message, RequestRefused):
            self._refuse(message)
        elif isinstance(message, EngineReady):
            self._start(message)
        elif isinstance(message, EngineFailed):
            self._end_engine(message)

    def lose_engine(self) -> None:
        """The socket to the engine closed."""
        self._end_engine(None)

    def _start(self, facts: EngineReady) -> None:
        self.facts = facts
        self.metrics.cache = CacheFacts(facts.block_size, facts.num_blocks, facts.kv_bytes)
        self.metrics.blocks_free = facts.num_blocks
        self._loaded.set()

    def _end_engine(self, failure: EngineFailed | None) -> None:
        if self.state is EngineState.DEAD:
            return
        self.state = EngineState.DEAD
        self._loaded.set()
        cause = "the engine died" if failure is None else failure.message
        self._fail_all(RequestFailedError(f"{cause}; this request could not be finished"))
        self._on_engine_end(failure)

    def _finish_step(self, message: StepFinished) -> None:
        now = time.monotonic()
        self._expect_answer()
        woken: dict[int, Inbox] = {}
        for request_id in message.started_request_ids:
            live = self._live.get(request_id)
            if live is not None:
                self._mark_started(live, now)
                live.inbox.put_started()
                woken[id(live.inbox)] = live.inbox
        for delta in message.deltas:
            live = self._live.get(delta.request_id)
            if live is None or delta.index not in live.open_indexes:
                continue  # aborted while the step ran
            live.inbox.put(live.prompt_index, delta)
            woken[id(live.inbox)] = live.inbox
            self._record_tokens(live, delta, now)
            if delta.finish_reason is not None:
                self._close_sequence(delta.request_id, live, delta.index, delta.finish_reason)
        for inbox in woken.values():
            if inbox.is_overfull:
                self._give_up(inbox)
            inbox.wake()
        self._record_state(message.stats)
        self.metrics.num_steps += 1
        self.metrics.num_preemptions += message.stats.num_preemptions
        if message.stats.num_tokens:
            self.metrics.step_tokens.observe(message.stats.num_tokens)

    def _refuse(self, message: RequestRefused) -> None:
        live = self._live.pop(message.request_id, None)
        if live is None:
            return
        self._forget(live)
        self.metrics.rejected[message.reason] += 1
        live.inbox.fail(_refusal_error(message))

    def _give_up(self, inbox: Inbox) -> None:
        for request_id in [each for each, live in self._live.items() if live.inbox is inbox]:
            self.abort(request_id)
        inbox.fail(RequestFailedError("the client did not read its answer; the request was given up"))

    def _fail_all(self, error: OctavoError) -> None:
        for request_id, live in list(self._live.items()):
            self._send(AbortRequest(request_id))
            for index in list(live.open_indexes):
                self._close_sequence(request_id, live, index, FinishReason.ERROR)
            live.inbox.fail(error)

    # ---- bookkeeping ------------------------------------------------------------------------------

    def _await_answer(self) -> None:
        """We said something. An answer that is owed already keeps its time: neither may newcomers put off
        that a hang is seen, nor cut short the time of a long step that runs."""
        if self._answer_due_seconds is None:
            self._expect_answer()

    def _expect_answer(self, expected_seconds: float = 0.0) -> None:
        """The engine lives, and its next message is due."""
        self._answer_due_seconds = time.monotonic() + HANG_GRACE_SECONDS + HANG_FACTOR * expected_seconds

    def _mark_started(self, live: LiveRequest, now: float) -> None:
        if live.started_seconds is None:
            live.started_seconds = now
            self._num_unstarted -= 1
            # Counted now and not on arrival: what a refused request asked for may be absurd.
            self.metrics.queue_time.observe(now - live.arrival_seconds)
            self.metrics.request_prompt_tokens.observe(live.num_prompt_tokens)
            self.metrics.params_n.observe(live.params.n)
            if live.params.max_tokens is not None:
                self.metrics.params_max_tokens.observe(live.params.max_tokens)

    def _close_sequence(self, request_id: str, live: LiveRequest, index: int, reason: FinishReason) -> None:
        live.open_indexes.discard(index)
        self.metrics.finished[reason.value] += 1
        if not live.open_indexes:
            del self._live[request_id]
            self._forget(live)
            self._record_end(live)

    def _forget(self, live: LiveRequest) -> None:
        """After the request left `_live`: what depends on how many there are."""
        if live.started_seconds is None:
            self._num_unstarted -= 1
        if not self._live:
            self._drained.set()

    def _record_state(self, stats: StepStats) -> None:
        metrics = self.metrics
        metrics.num_requests_running = stats.num_running
        metrics.num_requests_waiting = stats.num_waiting
        metrics.blocks_used = stats.blocks_used
        metrics.blocks_free = stats.blocks_free
        metrics.kv_waste_ratio = stats.waste

    def _record_tokens(self, live: LiveRequest, delta: TokenDelta, now: float) -> None:
        metrics = self.metrics
        if live.first_token_seconds is None:
            self._mark_started(live, now)
            live.first_token_seconds = now
            metrics.time_to_first_token.observe(now - live.arrival_seconds)
            metrics.prefill_time.observe(now - (live.started_seconds or now))
            metrics.prompt_tokens += live.num_prompt_tokens
            metrics.prompt_tokens_cached += delta.num_cached_tokens
        num_tokens = len(delta.token_ids)
        if num_tokens:
            live.num_output_tokens += num_tokens
            metrics.generation_tokens += num_tokens
            last = live.last_token_seconds.get(delta.index)
            if last is not None:
                metrics.inter_token_latency.observe((now - last) / num_tokens, num_tokens)
            live.last_token_seconds[delta.index] = now

    def _record_end(self, live: LiveRequest) -> None:
        now, metrics = time.monotonic(), self.metrics
        metrics.e2e_latency.observe(now - live.arrival_seconds)
        metrics.request_generation_tokens.observe(live.num_output_tokens)
        if live.first_token_seconds is not None:
            decode_seconds = now - live.first_token_seconds
            metrics.decode_time.observe(decode_seconds)
            num_later = live.num_output_tokens - len(live.last_token_seconds)
            if num_later > 0:
                num_sequences = len(live.last_token_seconds)
                metrics.time_per_output_token.observe(decode_seconds * num_sequences / num_later)


def _refusal_error(refusal: RequestRefused) -> OctavoError:
    if refusal.reason == "queue_full":
        return OverloadedError(refusal.message, retry_after_seconds=refusal.retry_after_seconds)
    if refusal.reason == "too_long":
        return ContextLengthError(refusal.message, param=refusal.param)
    if refusal.reason == "invalid":
        return RequestError(refusal.message, param=refusal.param)
    return RequestFailedError(refusal.message)
