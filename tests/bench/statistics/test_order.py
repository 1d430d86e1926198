"""Percentiles: refused where n is too small, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.statistics.order import interval_ranks, num_needed, percentile


def test_the_numbers_needed_are_the_known_ones():
    assert [num_needed(level) for level in (0.5, 0.9, 0.95, 0.99, 0.999)] == [5, 29, 59, 299, 2995]
    assert num_needed(0.05) == 59
    with pytest.raises(ValueError, match="between 0 and 1"):
        num_needed(1.0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_one_value_fewer_is_refused(level):
    needs = num_needed(level)
    values = [float(number) for number in range(needs)]
    assert percentile(values[:-1], level).value is None
    found = percentile(values, level)
    assert found.value is not None
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high


def test_ranks_are_those_of_the_textbook():
    """Conover's table for the median of n = 10 and of n = 20: ranks 2 and 9, 6 and 15."""
    assert interval_ranks(10, 0.5) == (2, 9)
    assert interval_ranks(20, 0.5) == (6, 15)
    # scipy 1.17.1: scipy.stats.quantile_test(1..n, p=level).confidence_interval(0.95)
    ours = [interval_ranks(n, level) for n, level in ((100, 0.9), (150, 0.95), (700, 0.99))]
    assert ours == [(84, 96), (137, 148), (687, 699)]
    with pytest.raises(ValueError, match="do not bound"):
        interval_ranks(58, 0.95)


@pytest.mark.parametrize(("n", "level"), [(12, 0.5), (60, 0.9), (150, 0.95), (700, 0.99)])
def test_intervals_hold_the_truth_in_95_of_100_samples(n, level):
    draw = random.Random(1)
    hits = 0
    for _ in range(1_000):
        found = percentile([draw.random() for _ in range(n)], level)
        hits += found.low <= level <= found.high
    assert hits >= 935


@given(st.lists(st.floats(-1e6, 1e6), min_size=59, max_size=200), st.randoms())
def test_order_of_values_does_not_matter_and_the_interval_holds_the_estimate(values, draw):
    found = percentile(values, 0.95)
    shuffled = list(values)
    draw.shuffle(shuffled)
    assert percentile(shuffled, 0.95) == found
    assert found.low <= found.value <= found.high


def test_many_thousands_of_values_are_no_trouble():
    low, high = interval_ranks(20_000, 0.99)
    assert 19_740 < low < 19_800 < high < 19_860
