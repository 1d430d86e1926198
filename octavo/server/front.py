"""Front: the requests that the server has accepted, and the engine's state as far as it is known.

Submits, routes deltas to inboxes, aborts; answers what health asks, from memory. Knows no HTTP and
no text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from octavo.control.decoding.best_of import num_streams
from octavo.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineUnavailableError,
    OctavoError,
    OverloadedError,
    RequestError,
    RequestFailedError,
)
from octavo.messages import (
    AbortRequest,
    CacheAnswer,
    CacheQuestion,
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
from octavo.server.cache_questions import CacheQuestions
from octavo.server.inbox import Inbox
from octavo.server.live_request import LiveRequest
from octavo.server.waiting_prompts import WaitingPrompts
from octavo.service_params import DEFAULT_SERVICE, ServiceParams

# A step may take three times what was expected, plus this, before the engine counts as hung. With the
# probe's own delay it stays under the two seconds within which a hung server must say so.
HANG_GRACE_SECONDS = 1.2
HANG_FACTOR = 3.0


class EngineState(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class Front:
    """Accepted requests, by id.

    Args:
        send: delivers a message to the engine.
        metrics: where what happens is counted.
        max_unstarted: prompts that may wait for their first step before new ones are refused.
        max_unstarted_tokens: tokens of such prompts; None: any number.
        on_engine_end: called once with the reason, when the engine failed or is lost.
    """

    def __init__(
        self,
        send: Callable[[ToEngine], None],
        metrics: ServerMetrics,
        *,
        max_unstarted: int,
        max_unstarted_tokens: int | None = None,
        on_engine_end: Callable[[EngineFailed | None], None],
    ) -> None:
        self.state = EngineState.STARTING
        self.facts: EngineReady | None = None
        self.metrics = metrics
        self._send = send
        self._on_engine_end = on_engine_end
        self._live: dict[str, LiveRequest] = {}
        self._waiting = WaitingPrompts(max_prompts=max_unstarted, max_tokens=max_unstarted_tokens)
        self._questions = CacheQuestions(send)
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
        return self._waiting.is_full

    @property
    def num_live(self) -> int:
        return len(self._live)

    def record_queue(self) -> None:
        """Tell the metrics how long the queue is just now."""
        self.metrics.num_queued_prompts = self._waiting.num_prompts
        self.metrics.num_queued_tokens = self._waiting.num_tokens

    # ---- requests ---------------------------------------------------------------------------------

    def admit(self) -> EngineReady:
        """Whether a request may come in at all: asked before any work is done for it.

        Raises:
            EngineUnavailableError, OverloadedError.
        """
        facts = self._require_engine()
        if self.state is EngineState.DRAINING:
            raise EngineUnavailableError("the server is shutting down and takes no new requests")
        self._check_room(1, 1)
        return facts

    def submit(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        inbox: Inbox,
        *,
        bad_words_token_ids: tuple[tuple[int, ...], ...] = (),
        service: ServiceParams = DEFAULT_SERVICE,
        arrival_seconds: float,
    ) -> list[str]:
        """Send a body's prompts to the engine, all or none. Their deltas come to `inbox`, each marked with
        its prompt's index.

        Returns:
            The requests' ids, for `abort`.

        Raises:
            EngineUnavailableError, OverloadedError: as `admit`.
            RequestError: more prompts than could ever wait.
        """
        self.admit()
        self._check_room(len(prompts), sum(map(len, prompts)))
        request_ids: list[str] = []
        try:
            for prompt_index, prompt in enumerate(prompts):
                self._num_submitted += 1
                request_id = str(self._num_submitted)
                self._send(SubmitRequest(request_id, prompt, params, bad_words_token_ids, service))
                self._live[request_id] = LiveRequest(
                    inbox, prompt_index, len(prompt), params, arrival_seconds, set(range(num_streams(params)))
                )
                self._waiting.add(len(prompt), time.monotonic())
                request_ids.append(request_id)
        except BaseException:
            for request_id in request_ids:
                self.abort(request_id)
            raise
        self._await_answer()
        return request_ids

    async def ask_cache(self, make_question: Callable[[int], CacheQuestion]) -> dict[str, Any]:
        """Ask the engine about its cache; see CacheQuestions.ask.

        Raises:
            EngineUnavailableError, RequestError, RequestFailedError.
        """
        self._require_engine()
        self._await_answer()
        return await self._questions.ask(make_question)

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
            if self._live or self._questions:  # they were sent while the idle message was on its way
                self._expect_answer()
        elif isinstance(message, RequestRefused):
            self._refuse(message)
        elif isinstance(message, CacheAnswer):
            self._questions.receive(message)
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
        self._questions.fail_all(EngineUnavailableError(f"{cause}; this question could not be answered"))
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
            if delta.finish_reason in (FinishReason.DEADLINE, FinishReason.QUEUE_TIMEOUT):
                self._time_out(live, delta, now)
                continue
            live.inbox.put(live.prompt_index, delta)
            woken[id(live.inbox)] = live.inbox
            self._mark_started(live, now)
            live.record_tokens(self.metrics, delta, now)
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
        if message.reason == "queue_full":
            live.inbox.fail(self._overloaded(message.message))
        else:
            live.inbox.fail(_refusal_error(message))

    def _time_out(self, live: LiveRequest, delta: TokenDelta, now: float) -> None:
        """A request's time was over: an error, which is still an HTTP status if nothing was sent yet. The
        engine has ended all its sequences and says so one by one; the first word is enough."""
        reason = delta.finish_reason or FinishReason.DEADLINE
        has_waited = live.started_seconds is None
        for index in sorted(live.open_indexes):
            self._close_sequence(delta.request_id, live, index, reason)
        if reason is FinishReason.DEADLINE:
            live.inbox.fail(DeadlineExceededError(delta.error or "the request's deadline has passed"))
            return
        if has_waited:
            self.metrics.rejected[reason.value] += 1
        live.inbox.fail(self._overloaded(delta.error or "the request has waited too long to begin"))

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
            self._waiting.begin(live.num_prompt_tokens, now)
            live.record_start(self.metrics, now)

    def _close_sequence(self, request_id: str, live: LiveRequest, index: int, reason: FinishReason) -> None:
        live.open_indexes.discard(index)
        self.metrics.finished[reason.value] += 1
        if not live.open_indexes:
            del self._live[request_id]
            self._forget(live)
            live.record_end(self.metrics, time.monotonic())

    def _forget(self, live: LiveRequest) -> None:
        """After the request left `_live`: what depends on how many there are."""
        if live.started_seconds is None:
            self._waiting.remove(live.num_prompt_tokens)
        if not self._live:
            self._drained.set()

    def _record_state(self, stats: StepStats) -> None:
        metrics = self.metrics
        metrics.num_requests_running = stats.num_running
        metrics.num_requests_waiting = stats.num_waiting
        metrics.blocks_used = stats.blocks_used
        metrics.blocks_free = stats.blocks_free
        metrics.blocks_cached = stats.blocks_cached
        metrics.host_blocks_used = stats.host_blocks_used
        metrics.num_swapped = stats.num_swapped
        metrics.kv_waste_ratio = stats.waste
        metrics.kv_sharing_ratio = stats.sharing

    def _require_engine(self) -> EngineReady:
        if self.state is EngineState.STARTING:
            raise EngineUnavailableError("the model is still loading; try again in a moment")
        if self.state is EngineState.DEAD or self.facts is None:
            raise EngineUnavailableError("the engine has failed and the server is about to end")
        return self.facts

    def _check_room(self, num_prompts: int, num_tokens: int) -> None:
        try:
            self._waiting.check_room(num_prompts, num_tokens, time.monotonic())
        except OverloadedError:
            self.metrics.rejected["queue_full"] += 1
            raise

    def _overloaded(self, message: str) -> OverloadedError:
        seconds = self._waiting.retry_after_seconds(time.monotonic())
        return OverloadedError(message, retry_after_seconds=seconds)


def _refusal_error(refusal: RequestRefused) -> OctavoError:
    if refusal.reason == "too_long":
        return ContextLengthError(refusal.message, param=refusal.param)
    if refusal.reason == "invalid":
        return RequestError(refusal.message, param=refusal.param)
    return RequestFailedError(refusal.message)
