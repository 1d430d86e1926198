"""The loop: plan -> submit -> collect -> apply. Owns the live requests and appends their tokens.

May not touch devices, text or sockets. One thread calls it; a step is the only thing that takes time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from collections.abc import Sequence as ReadOnlySequence

from octavo.control.cache_control import CacheControl
from octavo.control.deadlines import Deadlines, describe
from octavo.control.decoding.live_beams import LiveBeams, StopFinder
from octavo.control.plan_runner import PlanRunner
from octavo.control.request_limits import RequestLimits
from octavo.control.scheduler.draft import StepDraft
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.step_trace import StepTrace
from octavo.errors import EngineUnavailableError, OverloadedError, RequestError
from octavo.request import FinishReason, Request, Sequence, SequenceStatus, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.service_params import DEFAULT_SERVICE, ServiceParams
from octavo.step import BlockCopyError, Candidate, Executor, SampledToken, SequenceSlice, StepResult

# A place in the queue comes free with the next admission, which is seldom further away than this.
_RETRY_AFTER_SECONDS = 1.0


class Engine:
    """Serves many requests at once, one step at a time.

    Every choice of a request ends with exactly one delta that has a finish reason: after `abort` too, so
    that whoever follows the deltas sees every end. Choices are the request's sequences; those of a beam
    search are the `n` best beams, whose deltas come whole, at the end.
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
        max_queued_tokens: int | None = None,
        queue_timeout_seconds: float | None = None,
        seed: int | None = None,
        find_stop: StopFinder | None = None,
    ) -> None:
        """Args:
        eos_token_ids: tokens that end an output unless the request says `ignore_eos`.
        vocab_size: width of the logits.
        max_model_len: longest context in tokens, prompt and output together.
        max_queued_requests, max_queued_tokens: requests, and tokens of their prompts, that may wait
            before more are refused.
        queue_timeout_seconds: for requests that name none themselves.
        seed: makes requests without a seed repeatable, in order of arrival.
        find_stop: finds stop strings in the outputs of beam searches.
        """
        self._scheduler = scheduler
        self._roster = scheduler.roster
        self._runner = PlanRunner(executor)
        self._eos_token_ids = frozenset(eos_token_ids)
        self._max_queued_requests = max_queued_requests
        self._max_queued_tokens = max_queued_tokens
        self._queue_timeout_seconds = queue_timeout_seconds
        self.limits = RequestLimits(
            vocab_size=vocab_size,
            max_model_len=max_model_len,
            num_blocks=scheduler.block_manager.num_blocks,
            block_size=scheduler.block_manager.block_size,
            max_num_seqs=scheduler.max_num_seqs,
        )
        self._seeds = random.SystemRandom() if seed is None else random.Random(seed)
        self._requests: dict[str, Request] = {}
        self._deadlines = Deadlines()
        self.cache = CacheControl(scheduler.block_manager, scheduler.pins, self._requests.values())
        self._beams = LiveBeams(scheduler.roster, self._eos_token_ids, self._fork_of, find_stop)
        self._num_requests = 0
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
        return self._roster.running.num_sequences

    @property
    def num_waiting(self) -> int:
        """Sequences that wait: new, preempted, swapped out, or for the first of their request."""
        return self._roster.num_waiting

    # -- requests

    def submit(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        bad_words_token_ids: Iterable[ReadOnlySequence[int]] = (),
        service: ServiceParams = DEFAULT_SERVICE,
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
        self._check_queue(len(prompt_token_ids))
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(prompt_token_ids),
            params=params,
            max_tokens=max_tokens,
            arrival_seconds=time.monotonic(),
            # 62 bits, so that adding a sequence's index stays within a signed 64-bit number.
            seed=self._seeds.getrandbits(62) if params.seed is None else params.seed,
            arrival_index=self._num_requests,
            bad_words_token_ids=bad_words,
            end_token_ids=frozenset(params.stop_token_ids)
            | (frozenset() if params.ignore_eos else self._eos_token_ids),
            service=service,
        )
        num_sequences = 1 if params.use_beam_search else params.num_sequences
        request.sequences = [self._new_sequence(request, index) for index in range(num_sequences)]
        if params.use_beam_search:
            self._beams.begin(request)
        self._num_requests += 1
        self._requests[request_id] = request
        self._deadlines.watch(request, self._queue_timeout_seconds)
        self._roster.add(request)
        return request

    def _check_queue(self, num_tokens: int) -> None:
        queued = self._roster.queued
        if len(queued) >= self._max_queued_requests:
            raise OverloadedError(
                f"{self._max_queued_requests} requests are waiting already; try again in a moment",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        # A prompt longer than the limit is taken when nothing else waits: it would be refused for ever.
        if (
            self._max_queued_tokens is not None
            and 0 < queued.num_tokens > self._max_queued_tokens - num_tokens
        ):
            raise OverloadedError(
                f"{queued.num_tokens} prompt tokens are waiting already, and {self._max_queued_tokens} may; "
                "try again in a moment",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request, or one of its choices. Its blocks are free at once; its last delta comes with
        the next step. What is not alive (any more) is ignored: it may just have finished. The choices of
        a beam search do not exist before its end, so that it can only be aborted whole."""
        request = self._requests.get(request_id)
        if request is None or (index is not None and request.params.use_beam_search):
            return
        self._pending_deltas += self._end(request, FinishReason.ABORT, index=index)

    def step(self) -> list[TokenDelta]:
        """One forward pass; what every choice gained in it. Empty when there is no work."""
        if not self.has_work:
            return []
        started_seconds = time.perf_counter()
        deltas, self._pending_deltas = self._pending_deltas, []
        self._end_overdue(deltas)
        draft = self._scheduler.plan_step()
        for sequence, line in draft.faults:
            deltas += self._fail(sequence, line)
        planned_seconds = time.perf_counter()
        result = StepResult(draft.step_id, tokens={})
        if draft.slices or draft.block_copies:
            try:
                result = self._runner.run(draft.plan)
                self._apply(draft, result, deltas)
            except BlockCopyError as error:
                self._forget(draft)
                for sequence in draft.sequences:
                    deltas += self._fail(sequence, f"internal error: {error}")
            except BaseException:
                # Ctrl-C, say: nobody knows what of the plan is in the cache, so it is computed again.
                self._forget(draft)
                self._pending_deltas = deltas + self._pending_deltas
                raise
        ended_seconds = time.perf_counter()
        self.last_step = self._trace(
            draft,
            plan_seconds=planned_seconds - started_seconds,
            compute_seconds=result.compute_seconds,
            step_seconds=ended_seconds - started_seconds,
        )
        self.cache.last_step_id = draft.step_id
        self._scheduler.learn(draft, result, ended_seconds - started_seconds)
        return deltas

    def close(self) -> None:
        """Abort what is alive and release the executor. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for request_id in list(self._requests):
            self.abort(request_id)
        self._runner.close()

    # -- applying a result

    def _apply(self, draft: StepDraft, result: StepResult, deltas: list[TokenDelta]) -> None:
        beams: dict[str, dict[int, list[Candidate]]] = {}
        for sequence, piece in zip(draft.sequences, draft.slices, strict=True):
            if sequence.is_finished:  # a sibling's failure ended its beam search
                continue
            failure = result.failures.get(piece.sequence_id) or _find_fault(piece, result)
            if failure is not None:
                deltas += self._fail(sequence, failure)
                continue
            self._roster.advance(sequence, len(piece.token_ids))
            if piece.prompt_logprob_targets:
                sequence.prompt_logprobs.extend(result.prompt_logprobs[piece.sequence_id])
            if piece.sample is None:
                if sequence.num_uncomputed_tokens == 0:  # it may not generate: `max_tokens=0`
                    deltas.append(self._finish(sequence, FinishReason.LENGTH))
            elif piece.sample.num_candidates:
                found = beams.setdefault(sequence.request.request_id, {})
                found[piece.sequence_id] = result.candidates[piece.sequence_id]
            else:
                deltas.append(self._append(sequence, result.tokens[piece.sequence_id]))
        for request_id, found in beams.items():
            request = self._requests.get(request_id)
            if request is not None:
                self._scheduler.policy.charge(request, 0, len(found))
                deltas += self._beams.advance(request, found)
                self._forget_if_finished(request)
        self._measure_sharing()

    def _append(self, sequence: Sequence, token: SampledToken) -> TokenDelta:
        """Append a sampled token, and end the sequence if that was its last."""
        request = sequence.request
        prompt_logprobs = _first_prompt_logprobs(sequence)
        sequence.token_ids.append(token.token_id)
        self._scheduler.policy.charge(request, 0, 1)
        reason, stop_reason = None, None
        if token.token_id in request.end_token_ids:
            reason = FinishReason.STOP
            is_eos = token.token_id in self._eos_token_ids and not request.params.ignore_eos
            stop_reason = None if is_eos else token.token_id
        elif sequence.num_output_tokens >= request.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            self._roster.finish(sequence, reason)
            self._forget_if_finished(request)
        return TokenDelta(
            request_id=request.request_id,
            index=sequence.index,
            token_ids=(token.token_id,),
            logprobs=None if token.logprobs is None else (token.logprobs,),
            prompt_logprobs=prompt_logprobs,
            finish_reason=reason,
            stop_reason=stop_reason,
            num_cached_tokens=request.num_cached_tokens or 0,
            sharing=None if reason is None else request.sharing,
        )

    # -- ends

    def _end_overdue(self, deltas: list[TokenDelta]) -> None:
        now = self.cache.expire_pins()
        for request, reason in self._deadlines.due(now):
            deltas += self._end(request, reason, describe(request, reason))

    def _fail(self, sequence: Sequence, error: str) -> list[TokenDelta]:
        """End a sequence that broke; the beams of a search stand and fall together."""
        if sequence.request.params.use_beam_search:
            return self._end(sequence.request, FinishReason.ERROR, error)
        return [self._finish(sequence, FinishReason.ERROR, error)]

    def _end(
        self, request: Request, reason: FinishReason, error: str | None = None, index: int | None = None
    ) -> list[TokenDelta]:
        """End what is alive of a request, or one of its choices, for a reason of its own."""
        alive = [one for one in request.sequences if not one.is_finished and index in (None, one.index)]
        # Running ones last, so that a dying request's prompt is not handed over to a dying sibling.
        alive.sort(key=lambda one: one.status is SequenceStatus.RUNNING)
        if not request.params.use_beam_search:
            return [self._finish(sequence, reason, error) for sequence in alive]
        for beam in alive:
            self._roster.finish(beam, reason)
        if request.request_id not in self._requests:
            return []
        self._forget_if_finished(request)
        return [
            TokenDelta(request.request_id, choice, finish_reason=reason, error=error)
            for choice in range(request.params.n)
        ]

    def _finish(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> TokenDelta:
        """End a sequence with no new token; its last delta."""
        request = sequence.request
        prompt_logprobs = _first_prompt_logprobs(sequence) if reason is FinishReason.LENGTH else None
        if not sequence.is_finished:  # a sequence that could not be planned is finished already
            self._roster.finish(sequence, reason)
        self._forget_if_finished(request)
        return TokenDelta(
            request_id=request.request_id,
            index=sequence.index,
            prompt_logprobs=prompt_logprobs,
            finish_reason=reason,
            error=error,
            num_cached_tokens=request.num_cached_tokens or 0,
            sharing=request.sharing,
        )

    def _forget_if_finished(self, request: Request) -> None:
        if request.is_finished and self._requests.pop(request.request_id, None) is not None:
            self._beams.forget(request)

    def _forget(self, draft: StepDraft) -> None:
        """Nobody knows what a plan has left in the cache: all that it touched is computed again."""
        for sequence in {one.sequence_id: one for one in [*draft.sequences, *draft.moved]}.values():
            if sequence.status in (SequenceStatus.RUNNING, SequenceStatus.SWAPPED):
                self._roster.preempt(sequence)

    # -- sequences

    def _fork_of(self, request: Request, token_ids: list[int]) -> Sequence:
        """A further sequence of a live request, with these tokens."""
        sequence = self._new_sequence(request, 0)
        sequence.token_ids = token_ids
        return sequence

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

    # -- measuring

    def _measure_sharing(self) -> None:
        for request in self._roster.running.in_order():
            if len(request.sequences) > 1:
                ids = [sequence.sequence_id for sequence in request.sequences]
                request.sharing_total += self._scheduler.block_manager.sharing_of(ids)
                request.num_sharing_steps += 1

    def _trace(
        self, draft: StepDraft, *, plan_seconds: float, compute_seconds: float, step_seconds: float
    ) -> StepTrace:
        cache = self._scheduler.block_manager
        empty_slots = cache.num_empty_slots()
        return StepTrace(
            step_id=draft.step_id,
            num_running=self._roster.running.num_sequences,
            num_waiting=self._roster.num_waiting,
            num_prefill_tokens=draft.num_prefill_tokens,
            num_decode_tokens=draft.num_decode_tokens,
            blocks_used=cache.num_used_blocks,
            blocks_free=cache.num_free_blocks,
            used_slots=cache.num_used_blocks * cache.block_size - empty_slots,
            empty_slots=empty_slots,
            blocks_cached=cache.num_kept_blocks,
            sharing=cache.sharing(),
            num_swapped=self._roster.num_swapped,
            host_blocks_used=cache.num_used_host_blocks,
            num_preemptions=draft.num_preemptions,
            plan_seconds=plan_seconds,
            compute_seconds=compute_seconds,
            step_seconds=step_seconds,
        )


def _find_fault(piece: SequenceSlice, result: StepResult) -> str | None:
    """What is missing of a slice's result, in one line."""
    num_entries = len(result.prompt_logprobs.get(piece.sequence_id, ()))
    if num_entries != len(piece.prompt_logprob_targets):
        return "the executor returned the wrong number of prompt log-probabilities"
    if piece.sample is None:
        return None
    if piece.sample.num_candidates:
        is_there = piece.sequence_id in result.candidates
    else:
        is_there = piece.sequence_id in result.tokens
    return None if is_there else "the executor returned no token for this request"


def _first_prompt_logprobs(sequence: Sequence) -> tuple[TokenLogprobs, ...] | None:
    """What a sequence's first delta carries about its prompt; None where not asked, or said before."""
    if sequence.request.params.prompt_logprobs is None or sequence.num_output_tokens:
        return None
    return tuple(sequence.prompt_logprobs)
