"""The queue's limits in prompts and tokens, and its guess of when there will be room."""

from __future__ import annotations

import pytest

from octavo.errors import OverloadedError, RequestError
from octavo.server.waiting_prompts import (
    MAX_RETRY_SECONDS,
    MIN_RETRY_SECONDS,
    StartRate,
    WaitingPrompts,
)


def test_the_limit_in_prompts_holds_for_a_whole_body() -> None:
    queue = WaitingPrompts(max_prompts=3, max_tokens=None)
    queue.check_room(3, 10**9, 0.0)
    with pytest.raises(RequestError, match="4 entries"):
        queue.check_room(4, 4, 0.0)  # which no waiting would help
    queue.add(5, 0.0)
    queue.check_room(2, 2, 0.0)
    with pytest.raises(OverloadedError, match="1 prompts with 5 tokens"):
        queue.check_room(3, 3, 0.0)
    assert not queue.is_full
    queue.add(5, 0.0)
    queue.add(5, 0.0)
    assert queue.is_full
    queue.begin(5, 1.0)
    assert not queue.is_full


def test_the_limit_in_tokens_lets_one_long_prompt_in_when_nothing_waits() -> None:
    queue = WaitingPrompts(max_prompts=100, max_tokens=50)
    queue.check_room(1, 1000, 0.0)
    queue.add(1000, 0.0)
    assert queue.is_full
    with pytest.raises(OverloadedError):
        queue.check_room(1, 1, 0.0)
    queue.begin(1000, 2.0)
    queue.add(30, 2.0)
    queue.check_room(1, 20, 2.0)
    with pytest.raises(OverloadedError):
        queue.check_room(1, 21, 2.0)
    queue.remove(30)
    assert (queue.num_prompts, queue.num_tokens) == (0, 0)


def test_the_time_to_come_back_follows_the_measured_rate() -> None:
    queue = WaitingPrompts(max_prompts=1000, max_tokens=1000)
    for _ in range(10):
        queue.add(100, 0.0)
    for second in range(1, 6):  # a prompt of 100 tokens a second
        queue.begin(100, float(second))
        queue.add(100, float(second))
    assert queue.num_tokens == 1000
    # 500 tokens have to begin before a prompt of 500 finds room.
    assert queue.retry_after_seconds(5.0, 1, 500) == pytest.approx(5.0)
    assert queue.retry_after_seconds(5.0, 1, 100) == pytest.approx(1.0)
    # While nothing begins, the same rate is seen to fall.
    assert queue.retry_after_seconds(10.0, 1, 500) == pytest.approx(10.0, rel=0.1)


def test_where_prompts_are_what_lacks_room_their_mean_length_counts() -> None:
    queue = WaitingPrompts(max_prompts=4, max_tokens=None)
    for _ in range(4):
        queue.add(50, 0.0)
    queue.begin(50, 5.0)
    queue.add(50, 5.0)
    assert queue.retry_after_seconds(5.0, 2, 10**6) == pytest.approx(10.0)


def test_the_time_to_come_back_is_bounded() -> None:
    queue = WaitingPrompts(max_prompts=2, max_tokens=None)
    queue.add(10, 0.0)
    assert queue.retry_after_seconds(0.0) == MIN_RETRY_SECONDS
    assert queue.retry_after_seconds(20.0) == pytest.approx(20.0)  # nothing has begun: as long again
    assert queue.retry_after_seconds(10_000.0) == MAX_RETRY_SECONDS
    queue.begin(10, 10_000.0)
    assert MIN_RETRY_SECONDS <= queue.retry_after_seconds(10_000.0) <= MAX_RETRY_SECONDS


def test_idle_time_says_nothing_about_the_rate() -> None:
    rate = StartRate()
    rate.begin_waiting(0.0)
    rate.record(100, 1.0)
    rate.end_waiting()
    rate.begin_waiting(5000.0)
    assert rate.seconds_for(200, 5000.0) == pytest.approx(2.0)


def test_what_lies_far_back_is_forgotten() -> None:
    rate = StartRate()
    rate.begin_waiting(0.0)
    for second in range(1, 11):
        rate.record(1000, float(second))
    for second in range(11, 311):
        rate.record(10, float(second))
    assert rate.seconds_for(100, 310.0) == pytest.approx(10.0, rel=0.1)
