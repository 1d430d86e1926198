"""SamplingParams: what is accepted, what is refused, and that the refusal names the field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from octavo.errors import RequestError
from octavo.sampling_params import MAX_N, MAX_STOP_STRINGS, SEED_RANGE, SamplingParams


def test_one_stop_string_is_a_list_of_one() -> None:
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize("field", ["stop", "stop_token_ids", "allowed_token_ids", "bad_words", "logit_bias"])
def test_none_asks_for_nothing_and_what_is_no_list_is_refused(field: str) -> None:
    assert SamplingParams(**{field: None}) == SamplingParams()
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{field: 5})
    assert caught.value.param == field


def test_what_each_kind_of_decoding_needs() -> None:
    assert SamplingParams(temperature=0).is_greedy
    assert not SamplingParams().is_greedy
    assert not SamplingParams().needs_history
    assert SamplingParams(repetition_penalty=1.1).needs_history
    assert SamplingParams(bad_words=["no"]).needs_history


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("n", [1, MAX_N]),
        ("temperature", [0, 2.0]),
        ("top_p", [1e-9, 1]),
        ("top_k", [-1, 0, 10**9]),
        ("min_p", [0, 1]),
        ("seed", [-SEED_RANGE, SEED_RANGE - 1, None]),
        ("max_tokens", [0, None]),
        ("logprobs", [0, 20, None]),
        ("repetition_penalty", [0.01, 100]),
        ("stop", [[], ["x"] * MAX_STOP_STRINGS]),
    ],
)
def test_the_ends_of_each_range_are_inside(field: str, values: list[Any]) -> None:
    for value in values:
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("n", [0, MAX_N + 1, 1.0, True, "1"]),
        ("temperature", [-0.1, 2.1, math.nan, math.inf, "hot", True]),
        ("top_p", [0, 1.1, math.nan]),
        ("top_k", [-2, 0.5]),
        ("min_p", [-0.1, 1.5]),
        ("presence_penalty", [2.5, -2.5]),
        ("frequency_penalty", [2.5, math.nan]),
        ("repetition_penalty", [0, -1, 101]),
        ("seed", [SEED_RANGE, -SEED_RANGE - 1, 1.5]),
        ("max_tokens", [-1, 1.5]),
        ("min_tokens", [-1, 17]),
        ("stop", [[""], [1], ["x"] * (MAX_STOP_STRINGS + 1), "x" * 1001]),
        ("stop_token_ids", [[-1], [1.5], [0] * 1025]),
        ("allowed_token_ids", [[-1]]),
        ("logprobs", [-1, 21, True]),
        ("prompt_logprobs", [21]),
        ("logit_bias", [{0: 101.0}, {-1: 0.0}, {0: math.nan}]),
        ("bad_words", [[""], [None]]),
        ("ignore_eos", [1, "yes", None]),
        ("detokenize", [0]),
    ],
)
def test_what_lies_outside_is_refused_by_name(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(RequestError) as caught:
            SamplingParams(**{field: value})
        assert caught.value.param == field, value
        assert field in str(caught.value)
        assert "\n" not in str(caught.value)


def test_stop_strings_need_text() -> None:
    with pytest.raises(RequestError, match="detokenize"):
        SamplingParams(stop="END", detokenize=False)
