"""Deadlines, queue timeouts and queue limits: by themselves, and as clients of an engine see them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from octavo.control import cache_control, engine
from octavo.control.deadlines import Deadlines, describe
from octavo.errors import OverloadedError
from octavo.request import FinishReason, SequenceStatus
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams
from tests.control.fake_engine import FakeEngine
from tests.control.scheduler.requests import make_request

PARAMS = SamplingParams(max_tokens=50, ignore_eos=True)
DEADLINE, QUEUE_TIMEOUT = FinishReason.DEADLINE, FinishReason.QUEUE_TIMEOUT


def test_each_limit_is_told_once_the_nearest_first() -> None:
    deadlines = Deadlines()
    late = make_request(arrival_seconds=100.0, deadline_seconds=9.0)
    soon = make_request(arrival_seconds=101.0, deadline_seconds=2.0, queue_timeout_seconds=1.0)
    for request in (late, soon):
        deadlines.watch(request, None)
    assert deadlines.due(101.9) == []
    assert deadlines.due(102.0) == [(soon, QUEUE_TIMEOUT)]
    assert deadlines.due(200.0) == [(soon, DEADLINE), (late, DEADLINE)]
    assert deadlines.due(1e9) == []


def test_a_request_without_limits_has_none_but_the_engines() -> None:
    deadlines = Deadlines()
    deadlines.watch(make_request(), None)
    assert deadlines.due(1e9) == []
    own, other = make_request(queue_timeout_seconds=5.0), make_request()
    for request in (own, other):
        deadlines.watch(request, 1.0)
    assert deadlines.due(2.0) == [(other, QUEUE_TIMEOUT)], "its own limit goes before the engine's"


def test_who_has_begun_does_not_wait_and_who_has_ended_is_late_for_nothing() -> None:
    deadlines = Deadlines()
    begun, preempted, ended = (
        make_request(queue_timeout_seconds=1.0, deadline_seconds=3.0) for _ in range(3)
    )
    for request in (begun, preempted, ended):
        deadlines.watch(request, None)
    begun.num_cached_tokens = 0
    preempted.sequences[0].status = SequenceStatus.PREEMPTED
    ended.sequences[0].status = SequenceStatus.FINISHED
    assert deadlines.due(2.0) == []
    assert deadlines.due(3.0) == [(begun, DEADLINE), (preempted, DEADLINE)]


def test_the_client_is_told_which_limit_it_was() -> None:
    request = make_request(deadline_seconds=2.5)
    assert describe(request, DEADLINE) == "the request's deadline of 2.5 s has passed"
    assert "waited too long in the queue" in describe(request, QUEUE_TIMEOUT)


# -- through the engine, on a clock that the tests turn


class Clock:
    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def monotonic(self) -> float:
        return self.now_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    stand_in = SimpleNamespace(monotonic=clock.monotonic, perf_counter=time.perf_counter)
    for module in (engine, cache_control):
        monkeypatch.setattr(module, "time", stand_in)
    return clock


def test_a_deadline_ends_who_runs_and_frees_its_blocks(clock: Clock) -> None:
    fake = FakeEngine()
    service = ServiceParams(deadline_seconds=5.0)
    fake.engine.submit("late", [1, 2, 3], SamplingParams(max_tokens=50, n=2), service=service)
    fake.engine.submit("other", [4, 5, 6], PARAMS)
    fake.step()
    clock.now_seconds += 4.9
    fake.step()
    num_tokens = len(fake.outputs["late", 0].token_ids)
    clock.now_seconds += 0.2
    fake.step()
    for index in range(2):
        output = fake.outputs["late", index]
        assert output.finish_reason is DEADLINE
        assert output.error == "the request's deadline of 5 s has passed"
    assert len(fake.outputs["late", 0].token_ids) == num_tokens > 0
    assert fake.engine.num_running == 1
    assert len(fake.run()["other", 0].token_ids) == 50


def test_a_queue_timeout_ends_who_has_not_begun_only(clock: Clock) -> None:
    fake = FakeEngine(max_num_seqs=1, queue_timeout_seconds=10.0)
    fake.engine.submit("runs", [1, 2, 3], PARAMS)
    fake.step()
    fake.engine.submit("waits", [4, 5, 6], PARAMS)
    fake.engine.submit("patient", [7, 8], PARAMS, service=ServiceParams(queue_timeout_seconds=100.0))
    clock.now_seconds += 10.1
    fake.step()
    assert fake.outputs["waits", 0].finish_reason is QUEUE_TIMEOUT
    assert fake.outputs["waits", 0].token_ids == []
    outputs = fake.run()
    assert len(outputs["runs", 0].token_ids) == len(outputs["patient", 0].token_ids) == 50


def test_one_who_lost_its_blocks_is_not_in_the_queue_again(clock: Clock) -> None:
    fake = FakeEngine(queue_timeout_seconds=1.0)
    request = fake.engine.submit("a", [1, 2, 3], PARAMS)
    fake.step()
    fake.scheduler.roster.preempt(request.sequences[0])
    clock.now_seconds += 5.0
    assert len(fake.run()["a", 0].token_ids) == 50


def test_pins_end_on_the_same_clock(clock: Clock) -> None:
    fake = FakeEngine(prefix_caching=True)
    fake.engine.submit("a", list(range(1, 10)), SamplingParams(max_tokens=1))
    fake.run()
    fake.engine.cache.pin(list(range(1, 10)), ttl_seconds=3.0)
    clock.now_seconds += 2.0
    assert [pin.expires_in_seconds for pin in fake.engine.cache.list().pins] == [1.0]
    clock.now_seconds += 1.0
    assert fake.engine.cache.list().pins == []
    assert fake.cache.num_used_blocks == 0


# -- how much may wait


def test_tokens_that_wait_are_limited() -> None:
    fake = FakeEngine(max_num_seqs=1, max_queued_tokens=20)
    fake.engine.submit("runs", [1] * 50, PARAMS)
    fake.step()
    fake.engine.submit("a", [1] * 12, PARAMS)
    with pytest.raises(OverloadedError, match="12 prompt tokens are waiting already, and 20 may") as caught:
        fake.engine.submit("b", [1] * 9, PARAMS)
    assert caught.value.retry_after_seconds > 0
    fake.engine.submit("c", [1] * 8, PARAMS)
    fake.engine.abort("a")
    fake.engine.submit("d", [1] * 12, PARAMS)
    assert {name for name, _ in fake.run()} == {"runs", "a", "c", "d"}


def test_a_prompt_longer_than_the_limit_is_taken_when_nobody_waits() -> None:
    fake = FakeEngine(max_num_seqs=1, max_queued_tokens=20)
    fake.engine.submit("long", [1] * 60, PARAMS)
    with pytest.raises(OverloadedError):
        fake.engine.submit("short", [1], PARAMS)
    fake.step()
    fake.engine.submit("short", [1], PARAMS)
    fake.run()
