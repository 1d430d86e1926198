"""Drives an engine in a thread of its own: requests come in from outside, tokens go to sinks.

Owns the engine until it ends; nobody else may touch it meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from octavo.bench.targets.target import BenchRequest, Chunk, TargetError, TargetStep
from octavo.errors import OctavoError
from octavo.request import FinishReason, TokenDelta
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.control.engine import Engine
    from octavo.control.step_trace import StepTrace

# Called in the engine's thread: with each chunk, then once with None or what went wrong.
Sink = Callable[[Chunk | TargetError | None], None]


@dataclass(slots=True)
class _LiveRequest:
    sink: Sink
    num_unfinished: int
    chunk_token_ids: list[int] = field(default_factory=list)


class EngineThread:
    """Steps the engine while there is work, sleeps while there is none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wakeup = threading.Condition()
        self._actions: list[Callable[[], None]] = []
        self._has_ended = False
        self._live: dict[str, _LiveRequest] = {}
        self._steps: list[TargetStep] = []
        self._num_preemptions = 0
        self._num_cached_tokens = 0
        self._thread = threading.Thread(target=self._run, name="engine under test", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, requests: Sequence[tuple[BenchRequest, Sink]]) -> None:
        """All of them before the next step."""

        def submit_all() -> None:
            for request, sink in requests:
                self._submit(request, sink)

        self._post(submit_all)

    def abort(self, request_id: str) -> None:
        """Its sink is not called any more."""

        def forget() -> None:
            if self._live.pop(request_id, None) is not None:
                self._engine.abort(request_id)

        self._post(forget)

    def drop_cache(self) -> Future[None]:
        """Forget cached prefixes; done when the future is."""
        dropped: Future[None] = Future()

        def drop() -> None:
            self._engine.cache.drop()
            dropped.set_result(None)

        self._post(drop)
        return dropped

    def counts(self) -> dict[str, float]:
        return {
            "preemptions": float(self._num_preemptions),
            "prefix_hit_tokens": float(self._num_cached_tokens),
        }

    def take_steps(self) -> list[TargetStep]:
        steps, self._steps = self._steps, []
        return steps

    def end(self) -> None:
        """Give the engine back to the operating system; what runs is dropped."""
        self._post(lambda: setattr(self, "_has_ended", True))
        self._thread.join()

    def _post(self, action: Callable[[], None]) -> None:
        with self._wakeup:
            self._actions.append(action)
            self._wakeup.notify()

    def _run(self) -> None:
        try:
            while not self._has_ended:
                with self._wakeup:
                    while not self._actions and not self._engine.has_work:
                        self._wakeup.wait()
                    actions, self._actions = self._actions, []
                for action in actions:
                    action()
                if self._engine.has_work and not self._has_ended:
                    self._step()
        except Exception as error:
            self._end_all(TargetError(f"the engine broke: {type(error).__name__}: {error}"))
        finally:
            self._end_all(TargetError("the engine was stopped"))
            self._engine.close()

    def _end_all(self, error: TargetError) -> None:
        live, self._live = self._live, {}
        for request in live.values():
            request.sink(error)

    def _submit(self, request: BenchRequest, sink: Sink) -> None:
        params = _params(request)
        try:
            self._engine.submit(request.request_id, list(request.prompt_token_ids), params)
        except OctavoError as error:
            sink(TargetError(f"request {request.request_id}: {error}"))
            return
        self._live[request.request_id] = _LiveRequest(sink, params.n)

    def _step(self) -> None:
        start_ns = time.monotonic_ns()
        deltas = self._engine.step()
        end_ns = time.monotonic_ns()
        if self._engine.last_step is not None:
            trace = self._engine.last_step
            self._num_preemptions += trace.num_preemptions
            self._steps.append(_target_step(trace, start_ns, end_ns))
        self._tell(deltas, end_ns)

    def _tell(self, deltas: list[TokenDelta], arrival_ns: int) -> None:
        """One chunk a request, of all its samples."""
        touched: dict[str, _LiveRequest] = {}
        for delta in deltas:
            request = self._live.get(delta.request_id)
            if request is None:
                continue
            touched[delta.request_id] = request
            request.chunk_token_ids.extend(delta.token_ids)
            if delta.finish_reason is FinishReason.ERROR:
                del self._live[delta.request_id]
                request.sink(TargetError(f"request {delta.request_id} failed: {delta.error}"))
            elif delta.finish_reason is not None:
                request.num_unfinished -= 1
                if request.num_unfinished == 0:
                    self._num_cached_tokens += delta.num_cached_tokens
        for request_id, request in touched.items():
            if request_id not in self._live:
                continue
            if request.chunk_token_ids:
                token_ids = tuple(request.chunk_token_ids)
                request.chunk_token_ids.clear()
                request.sink(Chunk(arrival_ns=arrival_ns, num_tokens=len(token_ids), token_ids=token_ids))
            if request.num_unfinished == 0:
                del self._live[request_id]
                request.sink(None)


def _params(request: BenchRequest) -> SamplingParams:
    if request.beam_width:
        return SamplingParams(
            temperature=0.0,
            max_tokens=request.num_output_tokens,
            ignore_eos=True,
            use_beam_search=True,
            n=request.beam_width,
            best_of=request.beam_width,
        )
    return SamplingParams(
        temperature=0.0 if request.num_samples == 1 else 1.0,
        max_tokens=request.num_output_tokens,
        ignore_eos=True,
        n=request.num_samples,
    )


def _target_step(trace: StepTrace, start_ns: int, end_ns: int) -> TargetStep:
    # Of u used blocks, a sharing of s means u / (1 - s) without it.
    num_shared = round(trace.blocks_used * trace.sharing / (1 - trace.sharing)) if trace.sharing < 1 else 0
    return TargetStep(
        start_ns=start_ns,
        end_ns=end_ns,
        num_running=trace.num_running,
        num_waiting=trace.num_waiting,
        num_prefill_tokens=trace.num_prefill_tokens,
        num_decode_tokens=trace.num_decode_tokens,
        blocks_used=trace.blocks_used,
        blocks_shared=num_shared,
        blocks_cached=trace.blocks_cached,
        blocks_free=trace.blocks_free,
        num_preemptions=trace.num_preemptions,
    )
