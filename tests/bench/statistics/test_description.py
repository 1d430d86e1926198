"""A description of values, against Python's own statistics and values worked out by hand."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.statistics.description import describe, mode


def test_a_small_set_by_hand():
    found = describe([2.0, 4.0, 4.0, 6.0, 9.0])
    assert (found.n, found.mean, found.median, found.mode) == (5, 5.0, 4.0, 4.0)
    assert found.variance == pytest.approx(7.0)
    assert found.sd == pytest.approx(7.0**0.5)
    assert (found.smallest, found.largest, found.spread, found.iqr) == (2.0, 9.0, 7.0, 2.0)
    # scipy 1.17.1: scipy.stats.skew([2, 4, 4, 6, 9], bias=False)
    assert found.skew == pytest.approx(0.8099238707340585)
    assert found.percentiles[0].value == 4.0
    assert [one.value for one in found.percentiles[1:]] == [None, None, None]


def test_what_needs_more_values_is_absent_and_not_zero():
    one = describe([3.0])
    assert (one.sd, one.variance, one.skew) == (None, None, None)
    assert describe([1.0, 2.0]).skew is None
    assert describe([5.0] * 9).skew is None
    for wrong in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="value"):
            describe(wrong)


def test_the_mode_of_numbers_that_never_repeat_is_where_they_are_densest():
    draw = random.Random(2)
    values = [draw.gauss(50.0, 3.0) for _ in range(400)] + [draw.uniform(0.0, 200.0) for _ in range(100)]
    assert 46 < mode(values) < 54
    assert mode([7.0, 7.0, 2.0, 2.0]) == 2.0


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=80), st.floats(-50, 50), st.floats(0.5, 20))
def test_a_shift_and_a_scale_do_what_they_should(values, shift, scale):
    plain, moved = describe(values), describe([scale * value + shift for value in values])
    assert plain.smallest <= plain.median <= plain.largest
    assert moved.mean == pytest.approx(scale * plain.mean + shift, abs=1e-6, rel=1e-9)
    assert moved.sd == pytest.approx(scale * plain.sd, abs=1e-6, rel=1e-6)
    assert moved.spread == pytest.approx(scale * plain.spread, abs=1e-6, rel=1e-9)
    if plain.skew is not None and plain.sd > 1e-3 and moved.skew is not None:
        assert moved.skew == pytest.approx(plain.skew, abs=1e-5, rel=1e-4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_variance_is_the_librarys(values):
    assert describe(values).variance == statistics.variance(values)


def test_it_can_be_kept_as_json():
    kept = json.loads(json.dumps(describe([float(number) for number in range(60)]).as_json()))
    assert kept["p95"]["value"] == pytest.approx(56.05)
    assert kept["p99"] == {"value": None, "low": None, "high": None, "needs": 299}
