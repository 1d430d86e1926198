"""Bootstrap intervals and sign flips: against scipy's results, and against how often they hold the truth."""

from __future__ import annotations

import itertools
import random

import pytest

from octavo.bench.statistics.resampling import bca_interval, block_quantile_interval, ecdf_band, sign_flip_p

SAMPLE = [0.31, 0.12, 0.45, 0.28, 0.09, 0.51, 0.22, 0.38, 1.10, 0.17]


def test_bca_is_scipys_to_the_last_digits():
    """scipy 1.17.1: bootstrap((SAMPLE,), mean, method="BCa", n_resamples=10_000, rng=default_rng(seed))."""
    assert bca_interval(SAMPLE, seed=0) == pytest.approx((0.241, 0.626))
    assert bca_interval(SAMPLE, seed=1) == pytest.approx((0.242, 0.6203941343294342))
    assert bca_interval(SAMPLE, seed=2) == pytest.approx((0.243, 0.618))


def test_equal_values_have_no_width_and_one_value_no_interval():
    assert bca_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    with pytest.raises(ValueError, match="two values"):
        bca_interval([1.0])


def test_bca_holds_the_truth_about_as_often_as_it_says():
    draw = random.Random(3)
    hits = 0
    for _ in range(150):
        low, high = bca_interval([draw.gauss(0.0, 1.0) for _ in range(20)])
        hits += low <= 0.0 <= high
    assert hits >= 132


def test_sign_flips_of_few_values_are_counted_one_by_one():
    values = [0.3, -0.1, 0.4, 0.2, 0.25, 0.15]
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=6)
    ]
    expected = sum(one >= abs(sum(values)) - 1e-12 for one in sums) / 64
    assert sign_flip_p(values) == expected == 0.0625  # and scipy's permutation_test over samples
    assert sign_flip_p([0.1] * 5) == pytest.approx(0.0625)
    assert sign_flip_p([0.1] * 6) == pytest.approx(0.03125)


def test_many_values_are_drawn_and_no_p_is_zero():
    draw = random.Random(4)
    assert sign_flip_p([1.0] * 40) == pytest.approx(1e-5)
    assert sign_flip_p([draw.gauss(0.0, 1.0) for _ in range(40)]) > 0.01
    with pytest.raises(ValueError, match="no values"):
        sign_flip_p([])


def test_requests_that_depend_on_each_other_get_wide_intervals():
    """Blocks that differ as wholes: an interval over pooled requests would be far too narrow."""
    draw = random.Random(5)
    apart = [[10.0 * block + draw.random() for _ in range(100)] for block in range(5)]
    low, high = block_quantile_interval(apart, 0.5)
    assert low < 12 and high > 28
    alike = [[draw.random() for _ in range(100)] for _ in range(5)]
    low, high = block_quantile_interval(alike, 0.5)
    assert 0.35 < low < 0.5 < high < 0.65
    for blocks in ([[1.0]], [[1.0], []]):
        with pytest.raises(ValueError, match="blocks"):
            block_quantile_interval(blocks, 0.5)


def test_a_band_holds_the_distribution_function():
    draw = random.Random(6)
    places = [0.1, 0.3, 0.5, 0.7, 0.9]
    low, high = ecdf_band([[draw.random() for _ in range(60)] for _ in range(6)], places)
    assert all(below <= place <= above for below, place, above in zip(low, places, high, strict=True))
    assert all(above - below < 0.25 for below, above in zip(low, high, strict=True))
    single_low, single_high = ecdf_band([[0.2, 0.4, 0.6]], [0.0, 1.0])
    assert (single_low, single_high) == ([0.0, 1.0], [0.0, 1.0])
