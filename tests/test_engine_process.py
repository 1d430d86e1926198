"""The engine process alone, driven over its socket as the front does."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from octavo.config import CacheConfig, ComputeConfig, EngineConfig, ModelConfig
from octavo.engine_process import EngineLoop, StepClock
from octavo.messages import (
    AbortRequest,
    CacheAnswer,
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
    StopEngine,
    SubmitRequest,
    ToFront,
    UnpinPrefix,
    encode_frame,
)
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams

CONFIG = EngineConfig(compute=ComputeConfig(num_threads=1), cache=CacheConfig(kv_cache_memory=64 * 2**20))
GREEDY = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


class EngineUnderTest:
    """An engine process and the front's end of its socket."""

    def __init__(self, config: EngineConfig) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "octavo.engine_process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
            )
        self._decoder = FrameDecoder(ToFront)
        self._received: list[Any] = []
        self.send(StartEngine(config))

    def send(self, message: Any) -> None:
        self.connection.sendall(encode_frame(message))

    def receive(self, timeout_seconds: float = 60.0) -> Any:
        while not self._received:
            assert select.select([self.connection], [], [], timeout_seconds)[0], "no message came"
            data = self.connection.recv(2**16)
            assert data, "the engine closed the socket"
            self._received.extend(self._decoder.feed(data))
        return self._received.pop(0)

    def receive_until_idle(self) -> list[Any]:
        messages = []
        while not isinstance(message := self.receive(), EngineIdle):
            messages.append(message)
        return [*messages, message]

    def close(self) -> None:
        self.connection.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    running = EngineUnderTest(CONFIG)
    facts = running.receive()
    assert isinstance(facts, EngineReady)
    assert facts.vocab_size == 49152
    assert facts.max_model_len == 8192
    assert isinstance(running.receive(), EngineIdle)
    yield running
    running.close()


def test_a_request_is_answered_step_by_step_with_heartbeats(engine: EngineUnderTest) -> None:
    engine.send(SubmitRequest("a", [504, 3575, 282, 4649, 314], GREEDY))
    messages = engine.receive_until_idle()
    starts = [each for each in messages if isinstance(each, StepStarted)]
    steps = [each for each in messages if isinstance(each, StepFinished)]
    assert len(starts) == len(steps) == 5
    assert starts[0].num_tokens == 5
    assert [each.num_tokens for each in starts[1:]] == [1] * 4
    assert all(each.expected_seconds > 0 for each in starts)
    assert steps[0].started_request_ids == ["a"]
    deltas = [delta for step in steps for delta in step.deltas]
    assert [len(delta.token_ids) for delta in deltas] == [1] * 5
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert messages[-1].stats.blocks_used == 0


def test_a_refused_request_leaves_the_others_alone(engine: EngineUnderTest) -> None:
    engine.send(SubmitRequest("bad", [10**6], GREEDY))
    engine.send(SubmitRequest("good", [504], GREEDY))
    engine.send(SubmitRequest("long", [504] * 9000, GREEDY))
    messages = engine.receive_until_idle()
    if len(messages) < 5:  # it was idle again before the second came
        messages += engine.receive_until_idle()
    refusals = {each.request_id: each for each in messages if isinstance(each, RequestRefused)}
    assert (refusals["bad"].reason, refusals["bad"].param) == ("invalid", "prompt")
    assert refusals["long"].reason == "too_long"
    tokens = [
        token
        for each in messages
        if isinstance(each, StepFinished)
        for delta in each.deltas
        if delta.request_id == "good"
        for token in delta.token_ids
    ]
    assert len(tokens) == 5


def test_an_abort_frees_the_blocks_within_two_steps(engine: EngineUnderTest) -> None:
    engine.send(SubmitRequest("c", [504] * 40, SamplingParams(max_tokens=500, ignore_eos=True, n=2)))
    for _ in range(3):
        while not isinstance(engine.receive(), StepFinished):
            pass
    engine.send(AbortRequest("c"))
    messages = engine.receive_until_idle()
    steps = [each for each in messages if isinstance(each, StepFinished)]
    # One step may have been under way; the next one after it must hold nothing.
    assert sum(each.stats.blocks_used > 0 for each in steps) <= 2
    assert messages[-1].stats.blocks_used == 0


def ask(engine: EngineUnderTest, question: Any) -> CacheAnswer:
    engine.send(question)
    (answer,) = [each for each in engine.receive_until_idle() if isinstance(each, CacheAnswer)]
    assert answer.query_id == question.query_id
    return answer


def test_questions_about_the_cache_are_answered_in_plain_types(engine: EngineUnderTest) -> None:
    prompt = list(range(600, 640))
    engine.send(SubmitRequest("d", prompt, GREEDY, service=ServiceParams(cache_salt="s")))
    engine.receive_until_idle()
    pin = ask(engine, PinPrefix(1, prompt, 60.0, "s")).found
    assert pin is not None
    assert pin["num_tokens"] > 0
    assert pin["expires_in_seconds"] == pytest.approx(60.0, abs=5.0)
    listing = ask(engine, ListPrefixes(2)).found
    assert listing is not None
    assert [each["pin_id"] for each in listing["pins"]] == [pin["pin_id"]]
    (ours,) = [each for each in listing["prefixes"] if each["cache_salt"] == "s"]
    assert ours["token_ids"][: pin["num_tokens"]] == prompt[: pin["num_tokens"]]
    assert ask(engine, UnpinPrefix(3, pin["pin_id"])).found == {}
    block_map = ask(engine, MapBlocks(4)).found
    assert block_map is not None
    assert block_map["block_size"] == 16
    dropped = ask(engine, DropPrefixes(5)).found
    assert dropped is not None
    assert dropped["num_blocks"] > 0
    assert ask(engine, DropPrefixes(6)).found == {"num_blocks": 0}


def test_a_wrong_question_disturbs_nobody(engine: EngineUnderTest) -> None:
    assert "77" in (ask(engine, UnpinPrefix(7, 77)).error or "")
    nothing_cached = ask(engine, PinPrefix(8, [1, 2, 3], 60.0))
    assert nothing_cached.error
    assert not nothing_cached.is_fault
    engine.send(SubmitRequest("e", [504], GREEDY))
    assert any(isinstance(each, StepFinished) for each in engine.receive_until_idle())


def test_a_fault_of_a_question_is_its_answer() -> None:
    def lose() -> None:
        raise KeyError("lost")

    broken = SimpleNamespace(list=lose)
    engine = SimpleNamespace(has_work=False, num_running=0, num_waiting=0, last_step=None, cache=broken)
    sent: list[Any] = []
    facts = SimpleNamespace(weight_bytes=1, num_blocks=4)
    messages = iter([[ListPrefixes(1)], [StopEngine()]])
    link = SimpleNamespace(send=sent.append, receive=lambda wait: next(messages))
    EngineLoop(SimpleNamespace(engine=engine, facts=facts), link, max_num_batched_tokens=1).run()
    assert isinstance(sent[0], CacheAnswer)
    assert sent[0].is_fault
    assert "KeyError" in sent[0].error
    assert isinstance(sent[1], EngineIdle)


def test_a_deadline_travels_to_the_engine_and_back(engine: EngineUnderTest) -> None:
    params = SamplingParams(max_tokens=1200, ignore_eos=True)
    service = ServiceParams(deadline_seconds=0.1)
    engine.send(SubmitRequest("f", [504], params, service=service))
    steps = [each for each in engine.receive_until_idle() if isinstance(each, StepFinished)]
    last = steps[-1].deltas[-1]
    assert last.finish_reason is FinishReason.DEADLINE
    assert last.error


def test_idle_it_uses_no_cpu_and_ignores_the_terminals_signals(engine: EngineUnderTest) -> None:
    process = psutil.Process(engine.process.pid)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    before = process.cpu_times()
    time.sleep(1.0)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.02
    assert process.is_running()


def test_it_stops_when_told_and_when_the_front_is_gone() -> None:
    for end in ("stop", "close"):
        engine = EngineUnderTest(CONFIG)
        assert isinstance(engine.receive(), EngineReady)
        engine.send(SubmitRequest("a", [504], SamplingParams(max_tokens=500, ignore_eos=True)))
        if end == "stop":
            engine.send(StopEngine())
        else:
            engine.connection.close()
        assert engine.process.wait(20.0) == 0
        engine.close()


def test_a_model_that_cannot_be_loaded_is_one_message_and_code_2(tmp_path: Any) -> None:
    engine = EngineUnderTest(EngineConfig(model=ModelConfig(model=str(tmp_path / "missing"))))
    failure = engine.receive()
    assert isinstance(failure, EngineFailed)
    assert failure.exit_code == 2
    assert "missing" in failure.message
    assert "\n" not in failure.message
    assert engine.process.wait(20.0) == 2
    engine.close()


def test_the_step_clock_guesses_long_rather_than_short() -> None:
    clock = StepClock(weight_bytes=10**9)
    assert clock.expect(10) == pytest.approx(1.0)
    clock.record(1, 0.02)
    assert clock.expect(1) == pytest.approx(0.02)
    assert clock.expect(500) >= 0.02 * 100
    for _ in range(50):
        clock.record(500, 0.8)
    assert clock.expect(300) == pytest.approx(0.8)
    assert clock.expect(1) == pytest.approx(0.02)
