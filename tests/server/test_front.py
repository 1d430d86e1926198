"""Front: what it says about the engine and its requests, message by message."""

from __future__ import annotations

import asyncio

import pytest

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
    EngineFailed,
    EngineIdle,
    EngineReady,
    ListPrefixes,
    RequestRefused,
    StepFinished,
    StepStarted,
    StepStats,
    SubmitRequest,
    ToEngine,
)
from octavo.observability.metrics import ServerMetrics
from octavo.request import FinishReason, TokenDelta
from octavo.sampling_params import SamplingParams
from octavo.server import front as front_module
from octavo.server.front import EngineState, Front
from octavo.server.inbox import MAX_UNREAD_DELTAS, Inbox

FACTS = EngineReady(
    max_model_len=100,
    vocab_size=50,
    num_blocks=10,
    block_size=16,
    kv_bytes=1,
    weight_bytes=1,
    device="cpu",
    dtype="float32",
    kernels="reference",
    load_seconds=0.1,
    pack_seconds=0.05,
    packed_bytes=1,
)
STATS = StepStats(1, 0, 3, 7, 0.1, 5, 0, 0.01)


class Recorder:
    """A front whose messages to the engine are kept."""

    def __init__(self, max_unstarted: int = 2, max_unstarted_tokens: int | None = None) -> None:
        self.sent: list[ToEngine] = []
        self.ends: list[EngineFailed | None] = []
        self.metrics = ServerMetrics()
        self.front = Front(
            self.sent.append,
            self.metrics,
            max_unstarted=max_unstarted,
            max_unstarted_tokens=max_unstarted_tokens,
            on_engine_end=self.ends.append,
        )

    def open(self) -> Recorder:
        self.front.receive(FACTS)
        self.front.open()
        return self

    def submit(self, n: int = 1) -> tuple[str, Inbox]:
        inbox = Inbox()
        (request_id,) = self.front.submit([[1, 2]], SamplingParams(n=n), inbox, arrival_seconds=0.0)
        return request_id, inbox

    def step(self, *deltas: TokenDelta, started: tuple[str, ...] = ()) -> None:
        self.front.receive(StepFinished(1, list(deltas), STATS, list(started)))


async def test_nothing_is_taken_before_everything_is_loaded() -> None:
    recorder = Recorder()
    assert recorder.front.is_live
    assert not recorder.front.is_ready
    with pytest.raises(EngineUnavailableError):
        recorder.submit()
    recorder.open()
    assert recorder.front.is_ready


async def test_deltas_reach_the_inbox_of_their_request() -> None:
    recorder = Recorder().open()
    first_id, first = recorder.submit()
    second_id, second = recorder.submit()
    assert [type(each) for each in recorder.sent] == [SubmitRequest, SubmitRequest]
    recorder.step(TokenDelta(first_id, 0, (5,)), TokenDelta(second_id, 0, (6,)))
    assert (await first.take())[0][1].token_ids == (5,)
    assert (await second.take())[0][1].token_ids == (6,)
    recorder.step(TokenDelta(first_id, 0, (7,), finish_reason=FinishReason.LENGTH))
    assert recorder.front.num_live == 1
    assert recorder.metrics.generation_tokens == 3
    assert recorder.metrics.finished == {"length": 1}


async def test_an_aborted_sequence_is_told_to_the_engine_once_and_heard_no_more() -> None:
    recorder = Recorder().open()
    request_id, inbox = recorder.submit(n=2)
    recorder.front.abort(request_id, 0, reason=FinishReason.STOP)
    recorder.front.abort(request_id, 0)
    recorder.step(TokenDelta(request_id, 0, (5,)), TokenDelta(request_id, 1, (6,)))
    assert [delta.index for _, delta in await inbox.take()] == [1]
    recorder.front.abort(request_id)
    recorder.front.abort(request_id)
    assert recorder.sent[1:] == [AbortRequest(request_id, 0), AbortRequest(request_id, None)]
    assert recorder.front.num_live == 0
    assert recorder.metrics.finished == {"stop": 1, "abort": 1}


@pytest.mark.parametrize(
    ("reason", "error_type"),
    [
        ("invalid", RequestError),
        ("too_long", ContextLengthError),
        ("queue_full", OverloadedError),
        ("fault", RequestFailedError),
    ],
)
async def test_a_refusal_ends_its_request_alone(reason: str, error_type: type[OctavoError]) -> None:
    recorder = Recorder().open()
    refused_id, refused = recorder.submit()
    good_id, good = recorder.submit()
    recorder.front.receive(RequestRefused(refused_id, "no", reason))  # type: ignore[arg-type]
    with pytest.raises(error_type, match="no"):
        await refused.wait_started()
    recorder.step(TokenDelta(good_id, 0, (5,)))
    assert await good.take()


async def test_a_full_queue_refuses_until_a_request_starts() -> None:
    recorder = Recorder(max_unstarted=2).open()
    first_id, _ = recorder.submit()
    recorder.submit()
    with pytest.raises(OverloadedError) as caught:
        recorder.submit()
    assert caught.value.retry_after_seconds > 0
    assert recorder.front.is_ready  # overload is not unreadiness
    recorder.step(started=(first_id,))
    recorder.submit()


async def test_a_body_is_let_in_whole_or_not_at_all() -> None:
    recorder = Recorder(max_unstarted=10, max_unstarted_tokens=8).open()
    params = SamplingParams()
    ids = recorder.front.submit([[1, 2], [3, 4, 5]], params, Inbox(), arrival_seconds=0.0)
    with pytest.raises(OverloadedError, match="2 prompts with 5 tokens"):
        recorder.front.submit([[1], [2], [3], [4]], params, Inbox(), arrival_seconds=0.0)
    assert recorder.front.num_live == len(recorder.sent) == 2
    assert recorder.metrics.rejected == {"queue_full": 1}
    recorder.step(started=tuple(ids))
    recorder.front.record_queue()
    assert (recorder.metrics.num_queued_prompts, recorder.metrics.num_queued_tokens) == (0, 0)
    recorder.front.submit([[1] * 9], params, Inbox(), arrival_seconds=0.0)  # nothing waits: let in
    recorder.front.record_queue()
    assert (recorder.metrics.num_queued_prompts, recorder.metrics.num_queued_tokens) == (1, 9)


async def test_a_message_that_does_not_fit_the_wire_leaves_nothing_of_its_body() -> None:
    recorder = Recorder(max_unstarted=10).open()
    send = recorder.sent.append

    def refuse_seven(message: ToEngine) -> None:
        if isinstance(message, SubmitRequest) and message.prompt_token_ids == [7]:
            raise OverflowError("too large")
        send(message)

    recorder.front._send = refuse_seven
    with pytest.raises(OverflowError):
        recorder.front.submit([[5], [6], [7]], SamplingParams(), Inbox(), arrival_seconds=0.0)
    assert recorder.front.num_live == 0
    assert [type(each) for each in recorder.sent] == [SubmitRequest] * 2 + [AbortRequest] * 2


async def test_a_request_that_waited_too_long_is_an_overload_before_it_has_begun() -> None:
    recorder = Recorder().open()
    request_id, inbox = recorder.submit(n=2)
    timeout = FinishReason.QUEUE_TIMEOUT
    recorder.step(*[TokenDelta(request_id, each, finish_reason=timeout, error="waited") for each in (0, 1)])
    with pytest.raises(OverloadedError, match="waited") as caught:
        await inbox.wait_started()
    assert 1 <= caught.value.retry_after_seconds <= 60
    assert recorder.metrics.rejected == {"queue_timeout": 1}
    assert recorder.metrics.finished == {"queue_timeout": 2}
    assert recorder.metrics.time_to_first_token.num_values == 0
    assert recorder.front.num_live == 0


async def test_a_deadline_is_met_after_what_came_before_it() -> None:
    recorder = Recorder().open()
    request_id, inbox = recorder.submit()
    recorder.step(TokenDelta(request_id, 0, (5,)))
    recorder.step(TokenDelta(request_id, 0, finish_reason=FinishReason.DEADLINE, error="too late"))
    assert len(await inbox.take()) == 1
    with pytest.raises(DeadlineExceededError, match="too late"):
        await inbox.take()
    assert recorder.front.num_live == 0
    assert recorder.metrics.rejected == {}


async def test_a_question_about_the_cache_is_answered_and_an_idle_engine_owes_nothing_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front_module, "HANG_GRACE_SECONDS", 0.02)
    recorder = Recorder()
    with pytest.raises(EngineUnavailableError, match="loading"):
        await recorder.front.ask_cache(ListPrefixes)
    recorder.open()
    asked = asyncio.create_task(recorder.front.ask_cache(ListPrefixes))
    await asyncio.sleep(0.04)
    assert recorder.front.is_hung
    recorder.front.receive(CacheAnswer(recorder.sent[0].query_id, {"pins": []}))
    recorder.front.receive(EngineIdle(STATS))
    assert await asked == {"pins": []}
    await asyncio.sleep(0.04)
    assert recorder.front.is_ready
    unanswered = asyncio.create_task(recorder.front.ask_cache(ListPrefixes))
    await asyncio.sleep(0)
    recorder.front.lose_engine()
    with pytest.raises(EngineUnavailableError, match="died"):
        await unanswered


async def test_the_caches_state_reaches_the_metrics() -> None:
    recorder = Recorder().open()
    request_id, _ = recorder.submit()
    stats = StepStats(1, 0, 3, 7, 0.1, 5, 2, 0.01, 4, 0.5, 1, 6)
    recorder.front.receive(StepFinished(1, [TokenDelta(request_id, 0, (5,), num_cached_tokens=1)], stats))
    metrics = recorder.metrics
    assert (metrics.blocks_cached, metrics.kv_sharing_ratio) == (4, 0.5)
    assert (metrics.num_swapped, metrics.host_blocks_used, metrics.num_preemptions) == (1, 6, 2)
    assert (metrics.prefix_cache_queries, metrics.prompt_tokens_cached) == (2, 1)


async def test_a_late_step_counts_as_hung_and_its_end_as_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "HANG_GRACE_SECONDS", 0.05)
    recorder = Recorder().open()
    request_id, _ = recorder.submit()
    recorder.front.receive(StepStarted(1, 2, 0.05))
    await asyncio.sleep(0.1)
    assert recorder.front.is_ready  # three times the expected time is allowed for
    await asyncio.sleep(0.15)
    assert recorder.front.is_hung
    assert recorder.front.is_live
    assert not recorder.front.is_ready
    recorder.step(TokenDelta(request_id, 0, (5,), finish_reason=FinishReason.STOP))
    assert recorder.front.is_ready
    recorder.front.receive(EngineIdle(STATS))
    await asyncio.sleep(0.1)
    assert recorder.front.is_ready  # an idle engine owes nothing


async def test_what_a_refused_request_asked_for_is_not_counted() -> None:
    recorder = Recorder().open()
    refused_id, _ = recorder.submit()
    good_id, _ = recorder.submit(n=2)
    recorder.front.receive(RequestRefused(refused_id, "no", "too_long"))
    recorder.step(TokenDelta(good_id, 0, (5,)), started=(good_id,))
    assert recorder.metrics.params_n.total == 2
    assert recorder.metrics.request_prompt_tokens.total == 2


async def test_newcomers_do_not_put_off_that_a_hang_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "HANG_GRACE_SECONDS", 0.05)
    recorder = Recorder(max_unstarted=10).open()
    for _ in range(4):
        request_id, _ = recorder.submit()
        recorder.front.abort(request_id)
        await asyncio.sleep(0.02)
    assert recorder.front.is_hung


async def test_newcomers_do_not_shorten_the_time_of_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "HANG_GRACE_SECONDS", 0.02)
    recorder = Recorder().open()
    recorder.submit()
    recorder.front.receive(StepStarted(1, 512, 10.0))
    recorder.submit()
    await asyncio.sleep(0.05)
    assert recorder.front.is_ready


async def test_an_idle_message_that_crossed_a_submission_does_not_hide_a_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front_module, "HANG_GRACE_SECONDS", 0.02)
    recorder = Recorder().open()
    recorder.submit()
    recorder.front.receive(EngineIdle(STATS))
    await asyncio.sleep(0.05)
    assert recorder.front.is_hung


async def test_engine_death_fails_every_request_and_is_told_once() -> None:
    recorder = Recorder().open()
    _, inbox = recorder.submit()
    recorder.front.receive(EngineFailed("broken", 1))
    recorder.front.lose_engine()
    with pytest.raises(RequestFailedError, match="broken"):
        await inbox.take()
    assert recorder.ends == [EngineFailed("broken", 1)]
    assert not recorder.front.is_live
    with pytest.raises(EngineUnavailableError):
        recorder.submit()


async def test_drain_waits_for_what_runs_and_refuses_new() -> None:
    recorder = Recorder().open()
    request_id, _ = recorder.submit()
    draining = asyncio.create_task(recorder.front.drain(10.0))
    await asyncio.sleep(0)
    assert recorder.front.state is EngineState.DRAINING
    assert not recorder.front.is_ready
    with pytest.raises(EngineUnavailableError):
        recorder.submit()
    assert not draining.done()
    recorder.step(TokenDelta(request_id, 0, (5,), finish_reason=FinishReason.STOP))
    await asyncio.wait_for(draining, 1.0)


async def test_drain_past_its_time_ends_requests_with_an_error() -> None:
    recorder = Recorder().open()
    request_id, inbox = recorder.submit()
    await recorder.front.drain(0.01)
    with pytest.raises(EngineUnavailableError):
        await inbox.take()
    assert AbortRequest(request_id) in recorder.sent


async def test_a_reader_that_never_reads_is_given_up() -> None:
    recorder = Recorder().open()
    request_id, inbox = recorder.submit()
    for _ in range(MAX_UNREAD_DELTAS + 1):
        recorder.step(TokenDelta(request_id, 0, (5,)))
    assert recorder.front.num_live == 0
    assert len(await inbox.take()) == MAX_UNREAD_DELTAS + 1
    with pytest.raises(RequestFailedError):
        await inbox.take()
