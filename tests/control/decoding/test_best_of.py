"""Choosing the best of several sequences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.control.decoding.best_of import (
    best_indexes,
    check_streamable,
    chooses,
    engine_params,
    mean_logprob,
    num_streams,
)
from octavo.errors import RequestError
from octavo.sampling_params import SamplingParams


def test_sequences_are_compared_by_their_mean_and_not_by_their_sum() -> None:
    long, short = [-0.5] * 10, [-1.0]
    assert sum(long) < sum(short)
    assert best_indexes([mean_logprob(short), mean_logprob(long)], 1) == [1]


def test_equals_stay_in_order_and_failures_come_last() -> None:
    assert best_indexes([-1.0, None, -0.5, -1.0, -math.inf, math.nan], 6) == [2, 0, 3, 4, 1, 5]
    assert best_indexes([-1.0] * 5, 3) == [0, 1, 2]
    assert mean_logprob([]) == 0.0


@given(st.lists(st.floats(max_value=0, allow_nan=False), min_size=1, max_size=20), st.data())
def test_nothing_better_is_left_out(means: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(means)))
    chosen = best_indexes(means, n)
    assert len(set(chosen)) == n
    assert [means[index] for index in chosen] == sorted(means, reverse=True)[:n]


@pytest.mark.parametrize(
    ("params", "streams", "is_choice", "param"),
    [
        (SamplingParams(n=2), 2, False, None),
        (SamplingParams(n=2, best_of=2), 2, False, None),
        (SamplingParams(n=2, best_of=5), 5, True, "best_of"),
        (SamplingParams(n=2, best_of=5, use_beam_search=True, temperature=0), 2, False, "use_beam_search"),
    ],
)
def test_what_the_engine_streams_and_what_a_client_may_have_streamed(
    params: SamplingParams, streams: int, is_choice: bool, param: str | None
) -> None:
    assert num_streams(params) == streams
    assert chooses(params) is is_choice
    if param is None:
        check_streamable(params)
    else:
        with pytest.raises(RequestError) as caught:
            check_streamable(params)
        assert caught.value.param == param


def test_logprobs_are_asked_for_only_where_it_takes_them() -> None:
    assert engine_params(SamplingParams(best_of=3)).logprobs == 0
    assert engine_params(SamplingParams(best_of=3, logprobs=2)).logprobs == 2
    assert engine_params(SamplingParams(n=3, best_of=3)).logprobs is None
