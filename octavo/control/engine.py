"""The loop: plan -> submit -> collect -> apply. Owns the live requests and appends their tokens.

May not touch devices, text or sockets. One thread calls it; a step is the only thing that takes time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable
from collections.abc import Sequence as ReadOnlySequence

from octavo.control.request_limits import RequestLimits
from octavo.control.scheduler.draft import StepDraft
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.step_trace import StepTrace
from octavo.errors import EngineUnavailableError, OverloadedError, RequestError
from octavo.request import FinishReason, Request, Sequence, SequenceStatus, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.step import Executor, SampledToken, SequenceSlice, StepPlan, StepResult

# A place in the queue comes free with the next admission, which is seldom further away than this.
_RETRY_AFTER_SECONDS = 1.0

_LOGGER = logging.getLogger(__name__)


class Engine:
    """Serves many requests at once, one step at a time.

    Every sequence ends with exactly one delta that has a finish reason: after `abort` too, so that
    whoever follows the deltas sees every end.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        *,
        eos_token_ids: Iterable[int],
        vocab_size: int,
        max_model_len: int,
        max_queued_requests: int,
        seed: int | None = None,
    ) -> None:
        """Args:
        eos_token_ids: tokens that end an output unless the request says `ignore_eos`.
        vocab_size: width of the logits.
        max_model_len: longest context in tokens, prompt and output together.
        max_queued_requests: requests that may wait before more are refused.
        seed: makes requests without a seed repeatable, in order of arrival.
        """
        self._scheduler = scheduler
        self._executor = executor
        self._eos_token_ids = frozenset(eos_token_ids)
        self._max_queued_requests = max_queued_requests
        self.limits = RequestLimits(
            vocab_size=vocab_size,
            max_model_len=max_model_len,
            num_blocks=scheduler.block_manager.num_blocks,
            block_size=scheduler.block_manager.block_size,
        )
        self._seeds = random.SystemRandom() if seed is None else random.Random(seed)
        self._requests: dict[str, Request] = {}
        self._next_sequence_id = 0
        self._pending_deltas: list[TokenDelta] = []
        self._is_closed = False
        self.last_step: StepTrace | None = None

    @property
    def has_work(self) -> bool:
        """Whether `step` would bring anything."""
        return bool(self._requests or self._pending_deltas)

    @property
    def num_running(self) -> int:
        """Sequences that hold a place in the steps."""
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Sequences that wait: new, preempted, or for the first of their request."""
        return self._scheduler.num_waiting

    def submit(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        bad_words_token_ids: Iterable[ReadOnlySequence[int]] = (),
    ) -> Request:
        """Queue a request; it joins the next step if there is room.

        Raises:
            RequestError: a field is wrong, or the id belongs to a live request.
            ContextLengthError: it can never fit, with the numbers.
            OverloadedError: too many requests wait.
            EngineUnavailableError: the engine is closed.
        """
        if self._is_closed:
            raise EngineUnavailableError("the engine is closed")
        if request_id in self._requests:
            raise RequestError(f"a request with the id {request_id!r} is still running", param="request_id")
        bad_words = tuple(tuple(token_ids) for token_ids in bad_words_token_ids)
        max_tokens = self.limits.check(prompt_token_ids, params, bad_words)
        if self._scheduler.num_queued_requests >= self._max_queued_requests:
            raise OverloadedError(
                f"{self._max_queued_requests} requests are waiting already; try again in a moment",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(prompt_token_ids),
            params=params,
            max_tokens=max_tokens,
            arrival_seconds=time.monotonic(),
            # 62 bits, so that adding a sequence's index stays within a signed 64-bit number.
            seed=self._seeds.getrandbits(62) if params.seed is None else params.seed,
            bad_words_token_ids=bad_words,
            end_token_ids=frozenset(params.stop_token_ids)
            | (frozenset() if params.ignore_eos else self._eos_token_ids),
        )
        request.sequences = [self._new_sequence(request, index) for index in range(params.n)]
        self._requests[request_id] = request
        self._scheduler.add(request)
        return request

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request, or one of its sequences. Its blocks are free at once; its last delta comes with
        the next step. What is not alive (any more) is ignored: it may just have finished."""
        request = self._requests.get(request_id)
        if request is None:
            return
        wanted = [
            sequence
            for sequence in request.sequences
            if not sequence.is_finished and index in (None, sequence.index)
        ]
        # Running ones last, so that a dying request's prompt is not handed over to a dying sibling.
        for sequence in sorted(wanted, key=lambda one: one.status is SequenceStatus.RUNNING):
            self._pending_deltas.append(self._finish(sequence, FinishReason.ABORT))

    def step(self) -> list[TokenDelta]:
        """One forward pass; what every sequence gained in it. Empty when there is no work."""
        if not self.has_work:
            return []
        started_seconds = time.perf_counter()
        deltas, self._pending_deltas = self._pending_deltas, []
        draft = self._scheduler.plan_step()
        deltas += [self._failed(sequence, line) for sequence, line in draft.faults]
        plan = draft.plan
        planned_seconds = time.perf_counter()
        compute_seconds = 0.0
        if plan.slices:
            try:
                result = self._run(plan)
                self._apply(draft, result, deltas)
            except BaseException:
                # Ctrl-C, say: nobody knows what of the plan is in the cache, so it is computed again.
                self._forget(draft)
                self._pending_deltas = deltas + self._pending_deltas
                raise
            compute_seconds = result.compute_seconds
        ended_seconds = time.perf_counter()
        self.last_step = self._trace(
            draft,
            plan_seconds=planned_seconds - started_seconds,
            compute_seconds=compute_seconds,
            step_seconds=ended_seconds - started_seconds,
        )
        return deltas

    def close(self) -> None:
        """Abort what is alive and release the executor. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for request_id in list(self._requests):
            self.abort(request_id)
        self._executor.close()

    # -- running a plan

    def _run(self, plan: StepPlan) -> StepResult:
        """Run a plan. If the pass as a whole fails, retry its halves until the culprits stand alone."""
        try:
            self._executor.submit(plan)
            result = self._executor.collect()
            while result.step_id != plan.step_id:  # left over from an interrupted step
                result = self._executor.collect()
            return result
        except Exception as error:
            _LOGGER.debug("step %d failed", plan.step_id, exc_info=error)
            if len(plan.slices) == 1:
                sequence_id = plan.slices[0].sequence_id
                _LOGGER.error("sequence %d broke its step: %s: %s", sequence_id, type(error).__name__, error)
                # The details stay in the log: an exception's text may hold paths or addresses.
                line = f"internal error while computing this request ({type(error).__name__})"
                return StepResult(plan.step_id, tokens={}, failures={sequence_id: line})
        middle = len(plan.slices) // 2
        _LOGGER.warning("step %d failed; running its %d slices in halves", plan.step_id, len(plan.slices))
        first = self._run(_part_of(plan, plan.slices[:middle]))
        second = self._run(_part_of(plan, plan.slices[middle:]))
        return StepResult(
            plan.step_id,
            first.tokens | second.tokens,
            first.prompt_logprobs | second.prompt_logprobs,
            first.failures | second.failures,
            first.candidates | second.candidates,
            first.compute_seconds + second.compute_seconds,
            first.copy_seconds + second.copy_seconds,
        )

    def _forget(self, draft: StepDraft) -> None:
        for sequence in draft.sequences:
            if sequence.status is SequenceStatus.RUNNING:
                self._scheduler.preempt(sequence)

    # -- applying a result

    def _apply(self, draft: StepDraft, result: StepResult, deltas: list[TokenDelta]) -> None:
        for sequence, piece in zip(draft.sequences, draft.slices, strict=True):
            failure = result.failures.get(piece.sequence_id)
            token = result.tokens.get(piece.sequence_id)
            entries = result.prompt_logprobs.get(piece.sequence_id, [])
            if failure is None and piece.sample is not None and token is None:
                failure = "the executor returned no token for this request"
            if failure is None and len(entries) != len(piece.prompt_logprob_targets):
                failure = "the executor returned the wrong number of prompt log-probabilities"
            if failure is not None:
                deltas.append(self._failed(sequence, failure))
                continue
            self._scheduler.advance(sequence, len(piece.token_ids))
            sequence.prompt_logprobs.extend(entries)
            if token is not None and piece.sample is not None:
                deltas.append(self._append(sequence, token))
            elif _is_done_without_output(sequence, piece):
                deltas.append(self._finish(sequence, FinishReason.LENGTH))

    def _append(self, sequence: Sequence, token: SampledToken) -> TokenDelta:
        """Append a sampled token, and end the sequence if that was its last."""
        request = sequence.request
        prompt_logprobs = _first_prompt_logprobs(sequence)
        sequence.token_ids.append(token.token_id)
        reason, stop_reason = None, None
        if token.token_id in request.end_token_ids:
            reason = FinishReason.STOP
            is_eos = token.token_id in self._eos_token_ids and not request.params.ignore_eos
            stop_reason = None if is_eos else token.token_id
        elif sequence.num_output_tokens >= request.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            self._end(sequence, reason)
        return TokenDelta(
            request_id=request.request_id,
            index=sequence.index,
            token_ids=(token.token_id,),
            logprobs=None if token.logprobs is None else (token.logprobs,),
            prompt_logprobs=prompt_logprobs,
            finish_reason=reason,
            stop_reason=stop_reason,
        )

    def _failed(self, sequence: Sequence, error: str) -> TokenDelta:
        return self._finish(sequence, FinishReason.ERROR, error)

    def _finish(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> TokenDelta:
        """End a sequence with no new token; its last delta."""
        prompt_logprobs = _first_prompt_logprobs(sequence) if reason is FinishReason.LENGTH else None
        self._end(sequence, reason)
        return TokenDelta(
            request_id=sequence.request.request_id,
            index=sequence.index,
            prompt_logprobs=prompt_logprobs,
            finish_reason=reason,
            error=error,
        )

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        if not sequence.is_finished:  # a sequence that could not be planned is finished already
            self._scheduler.finish(sequence, reason)
        if sequence.request.is_finished:
            self._requests.pop(sequence.request.request_id, None)

    def _new_sequence(self, request: Request, index: int) -> Sequence:
        sequence = Sequence(
            sequence_id=self._next_sequence_id,
            request=request,
            index=index,
            token_ids=list(request.prompt_token_ids),
            num_prompt_tokens=len(request.prompt_token_ids),
        )
        self._next_sequence_id += 1
        return sequence

    def _trace(
        self, draft: StepDraft, *, plan_seconds: float, compute_seconds: float, step_seconds: float
    ) -> StepTrace:
        cache = self._scheduler.block_manager
        empty_slots = cache.num_empty_slots()
        return StepTrace(
            step_id=draft.step_id,
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            num_prefill_tokens=draft.num_prefill_tokens,
            num_decode_tokens=draft.num_decode_tokens,
            blocks_used=cache.num_used_blocks,
            blocks_free=cache.num_free_blocks,
            used_slots=cache.num_used_blocks * cache.block_size - empty_slots,
            empty_slots=empty_slots,
            num_preemptions=draft.num_preemptions,
            plan_seconds=plan_seconds,
            compute_seconds=compute_seconds,
            step_seconds=step_seconds,
        )


def _part_of(plan: StepPlan, slices: list[SequenceSlice]) -> StepPlan:
    """The plan of some of the slices, with the copies that fill their blocks."""
    block_ids = {block_id for piece in slices for block_id in piece.block_ids}
    copies = [copy for copy in plan.block_copies if copy.target_block_id in block_ids]
    return StepPlan(plan.step_id, slices, copies)


def _first_prompt_logprobs(sequence: Sequence) -> tuple[TokenLogprobs, ...] | None:
    """What a sequence's first delta carries about its prompt; None where not asked, or said before."""
    if sequence.request.params.prompt_logprobs is None or sequence.num_output_tokens:
        return None
    return tuple(sequence.prompt_logprobs)


def _is_done_without_output(sequence: Sequence, piece: SequenceSlice) -> bool:
    """Whether a sequence that may not generate (`max_tokens=0`) has its whole prompt computed."""
    return piece.sample is None and sequence.num_uncomputed_tokens == 0
