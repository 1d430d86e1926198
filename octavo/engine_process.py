"""The engine process: builds an engine, obeys the front's messages and steps while there is work.

Started by the front as `python -m octavo.engine_process FD`, FD being its end of a socket pair. It
ends when that socket closes, so it never outlives the front. Idle, it sleeps in `recv`.
"""

from __future__ import annotations

import ctypes
import select
import signal
import socket
import sys
import traceback
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import msgspec

from octavo.errors import (
    ConfigError,
    ContextLengthError,
    ModelLoadError,
    OctavoError,
    OverloadedError,
    RequestError,
)
from octavo.messages import (
    AbortRequest,
    CacheAnswer,
    CacheQuestion,
    DropPrefixes,
    EngineFailed,
    EngineIdle,
    EngineReady,
    FrameDecoder,
    ListPrefixes,
    MapBlocks,
    PinPrefix,
    RequestRefused,
    StartEngine,
    StepFinished,
    StepStarted,
    StepStats,
    StopEngine,
    SubmitRequest,
    ToEngine,
    ToFront,
    UnpinPrefix,
    encode_frame,
)
from octavo.request import Request

if TYPE_CHECKING:
    from octavo.build import EngineParts
    from octavo.config import EngineConfig
    from octavo.control.engine import Engine

_RECEIVE_BYTES = 2**20
_PR_SET_PDEATHSIG = 1


class FrontGoneError(Exception):
    """The front closed the socket: there is nobody left to work for."""


class FrontLink:
    """The engine's end of the socket: whole messages out, whole messages in."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = FrameDecoder(ToEngine)

    def send(self, message: ToFront) -> None:
        try:
            self._connection.sendall(encode_frame(message))
        except OSError as error:
            raise FrontGoneError from error

    def receive_first(self) -> object:
        """The first message, slept for until it is whole. Nothing follows it before the answer."""
        while not (messages := self.receive(wait=True)):
            pass
        return messages[0]

    def receive(self, *, wait: bool) -> list[object]:
        """The messages that have come; `wait` sleeps until there is at least a part of one."""
        messages: list[object] = []
        while wait or select.select([self._connection], [], [], 0)[0]:
            try:
                data = self._connection.recv(_RECEIVE_BYTES)
            except OSError as error:
                raise FrontGoneError from error
            if not data:
                raise FrontGoneError
            messages.extend(self._decoder.feed(data))
            wait = False
        return messages


class StepClock:
    """Guesses how long a step of so many tokens takes, from those seen before.

    Steps are grouped by powers of two of their tokens; each group keeps a running mean. Before the
    first step of a group, its neighbour below is scaled up, which guesses too long rather than too
    short: a hang is declared late on a cold engine, but never wrongly.
    """

    def __init__(self, weight_bytes: int) -> None:
        # One multiply-add per weight and token at 10^10 a second: a slow core.
        self._cold_seconds_per_token = weight_bytes * 1e-10
        self._mean_seconds: dict[int, float] = {}

    def expect(self, num_tokens: int) -> float:
        """Seconds that a step of `num_tokens` should take."""
        group = num_tokens.bit_length()
        if group in self._mean_seconds:
            return self._mean_seconds[group]
        known_below = [known for known in self._mean_seconds if known < group]
        if known_below:
            nearest = max(known_below)
            return float(self._mean_seconds[nearest] * 2 ** (group - nearest))
        return num_tokens * self._cold_seconds_per_token

    def record(self, num_tokens: int, seconds: float) -> None:
        group = num_tokens.bit_length()
        mean = self._mean_seconds.get(group, seconds)
        self._mean_seconds[group] = mean + 0.2 * (seconds - mean)


class EngineLoop:
    """Drains the socket, steps the engine, reports. One thread, no clock of its own."""

    def __init__(self, parts: EngineParts, link: FrontLink, *, max_num_batched_tokens: int) -> None:
        self._engine = parts.engine
        self._link = link
        self._clock = StepClock(parts.facts.weight_bytes)
        self._num_blocks = parts.facts.num_blocks
        self._max_num_batched_tokens = max_num_batched_tokens
        self._live: dict[str, Request] = {}
        self._unstarted: dict[str, Request] = {}
        self._num_steps = 0

    def run(self) -> None:
        """Until StopEngine.

        Raises:
            FrontGoneError: the socket closed.
        """
        is_idle = False
        while True:
            messages = self._link.receive(wait=is_idle)
            for message in messages:
                if isinstance(message, StopEngine):
                    return
                self._obey(message)
            if self._engine.has_work:
                self._step()
                is_idle = False
            elif messages or not is_idle:
                self._link.send(EngineIdle(self._stats()))
                is_idle = True

    def _obey(self, message: object) -> None:
        if isinstance(message, SubmitRequest):
            self._submit(message)
        elif isinstance(message, AbortRequest):
            self._engine.abort(message.request_id, message.index)
            if message.index is None:
                self._live.pop(message.request_id, None)
                self._unstarted.pop(message.request_id, None)
        elif isinstance(message, PinPrefix | UnpinPrefix | ListPrefixes | DropPrefixes | MapBlocks):
            self._answer(message)

    def _submit(self, message: SubmitRequest) -> None:
        """One request's fault is its own: whatever it raises is answered and forgotten."""
        try:
            request = self._engine.submit(
                message.request_id,
                message.prompt_token_ids,
                message.params,
                bad_words_token_ids=message.bad_words_token_ids,
                service=message.service,
            )
        except Exception as error:
            self._link.send(_refuse(message.request_id, error))
        else:
            self._live[message.request_id] = request
            self._unstarted[message.request_id] = request

    def _answer(self, question: CacheQuestion) -> None:
        """A question's fault is its own: whatever it raises is its answer."""
        try:
            answer = CacheAnswer(question.query_id, msgspec.to_builtins(_look_up(self._engine, question)))
        except RequestError as error:
            answer = CacheAnswer(question.query_id, error=str(error))
        except Exception as error:
            answer = CacheAnswer(question.query_id, error=_describe_fault(error), is_fault=True)
        self._link.send(answer)

    def _step(self) -> None:
        self._num_steps += 1
        num_expected = self._expected_tokens()
        self._link.send(StepStarted(self._num_steps, num_expected, self._clock.expect(num_expected)))
        deltas = self._engine.step()
        stats = self._stats()
        if stats.num_tokens:
            self._clock.record(stats.num_tokens, stats.step_seconds)
        for delta in deltas:
            request = self._live.get(delta.request_id)
            if request is not None and delta.finish_reason is not None and request.is_finished:
                del self._live[delta.request_id]
        self._link.send(StepFinished(self._num_steps, deltas, stats, self._take_started()))

    def _expected_tokens(self) -> int:
        """An upper bound of the tokens in the coming step: what is uncomputed, within the budget."""
        total = 0
        for request in self._live.values():
            for sequence in request.sequences:
                if not sequence.is_finished:
                    total += len(sequence.token_ids) - sequence.num_computed_tokens
            if total >= self._max_num_batched_tokens:
                return self._max_num_batched_tokens
        return max(total, 1)

    def _take_started(self) -> list[str]:
        """Requests of which something has been computed by now, and had not before."""
        started = []
        for request_id, request in list(self._unstarted.items()):
            if any(sequence.num_computed_tokens for sequence in request.sequences):
                started.append(request_id)
            elif not request.is_finished:
                continue
            del self._unstarted[request_id]  # what ended in the queue never began
        return started

    def _stats(self) -> StepStats:
        trace = self._engine.last_step
        num_tokens = 0 if trace is None else trace.num_prefill_tokens + trace.num_decode_tokens
        return StepStats(
            num_running=self._engine.num_running,
            num_waiting=self._engine.num_waiting,
            blocks_used=0 if trace is None else trace.blocks_used,
            blocks_free=self._num_blocks if trace is None else trace.blocks_free,
            waste=0.0 if trace is None else trace.waste,
            num_tokens=num_tokens,
            num_preemptions=0 if trace is None else trace.num_preemptions,
            step_seconds=0.0 if trace is None else trace.step_seconds,
            blocks_cached=0 if trace is None else trace.blocks_cached,
            sharing=0.0 if trace is None else trace.sharing,
            num_swapped=0 if trace is None else trace.num_swapped,
            host_blocks_used=0 if trace is None else trace.host_blocks_used,
        )


def _look_up(engine: Engine, question: CacheQuestion) -> Any:
    """The answer to a question about the cache, as the engine gives it."""
    if isinstance(question, PinPrefix):
        return engine.cache.pin(
            question.token_ids, ttl_seconds=question.ttl_seconds, cache_salt=question.cache_salt
        )
    if isinstance(question, UnpinPrefix):
        engine.cache.unpin(question.pin_id)
        return {}
    if isinstance(question, ListPrefixes):
        return engine.cache.list()
    if isinstance(question, DropPrefixes):
        return {"num_blocks": engine.cache.drop()}
    return engine.cache.map()


def _refuse(request_id: str, error: Exception) -> RequestRefused:
    if isinstance(error, OverloadedError):
        return RequestRefused(
            request_id, str(error), "queue_full", retry_after_seconds=error.retry_after_seconds
        )
    if isinstance(error, ContextLengthError):
        return RequestRefused(request_id, str(error), "too_long", error.param)
    if isinstance(error, RequestError):
        return RequestRefused(request_id, str(error), "invalid", error.param)
    return RequestRefused(request_id, _describe_fault(error), "fault")


def main(arguments: list[str]) -> int:
    """Serve the front at the other end of file descriptor `arguments[0]`. Returns the exit code."""
    _live_and_die_with_the_front()
    link = FrontLink(socket.socket(fileno=int(arguments[0])))
    try:
        return _serve(link)
    except FrontGoneError:
        return 0


def _serve(link: FrontLink) -> int:
    start = link.receive_first()
    if not isinstance(start, StartEngine):
        return 1
    try:
        _run_engine(start.config, link)
    except FrontGoneError:
        raise
    except OctavoError as error:
        exit_code = 2 if isinstance(error, ConfigError | ModelLoadError) else 1
        link.send(EngineFailed(str(error), exit_code))
        return exit_code
    except Exception as error:
        link.send(EngineFailed(_describe_fault(error), 1))
        return 1
    return 0


def _run_engine(config: EngineConfig, link: FrontLink) -> None:
    from octavo.build import build_engine  # noqa: PLC0415  (the front's stop is obeyed before torch loads)
    from octavo.observability.process import calm_garbage_collector  # noqa: PLC0415

    parts = build_engine(config)
    calm_garbage_collector()
    try:
        facts = asdict(parts.facts)
        link.send(EngineReady(**{name: facts[name] for name in EngineReady.__struct_fields__}))
        max_num_batched_tokens = config.scheduler.max_num_batched_tokens
        EngineLoop(parts, link, max_num_batched_tokens=max_num_batched_tokens).run()
    finally:
        parts.engine.close()


def _live_and_die_with_the_front() -> None:
    """Leave Ctrl-C and SIGTERM to the front, which drains; die at once if the front is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        # While a model loads nobody reads the socket, so its closing alone would be seen late.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _describe_fault(error: Exception) -> str:
    """One line for a fault of ours: what, and the innermost place of it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {PurePath(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())[:500]
    return f"internal fault: {type(error).__name__}: {text}{where}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
