"""Quantiles and paired ratios, against values that can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from octavo.bench.statistics import paired_ratio, quantile


def test_quantiles_are_interpolated():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert quantile([1.0, 2.0], 0.9) == pytest.approx(1.9)
    assert quantile([5.0], 0.99) == 5.0
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_ratio_is_the_geometric_mean_of_its_pairs():
    ratio = paired_ratio([2.0, 8.0], [1.0, 1.0])
    assert ratio.mean == pytest.approx(4.0)
    # Logs 0.693 and 2.079: sd 0.980, so 12.706 x 0.980 / sqrt(2) = 8.81.
    assert math.log(ratio.high / ratio.mean) == pytest.approx(12.706 * math.log(2), rel=1e-6)
    assert ratio.low * ratio.high == pytest.approx(16.0)


def test_equal_pairs_have_no_margin_and_one_pair_no_interval():
    ratio = paired_ratio([3.0, 6.0, 9.0], [1.0, 2.0, 3.0])
    assert (ratio.mean, ratio.low, ratio.high) == (pytest.approx(3.0),) * 3
    assert paired_ratio([3.0], [1.0]).low is None


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="argument"):
        paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no pairs"):
        paired_ratio([], [])
