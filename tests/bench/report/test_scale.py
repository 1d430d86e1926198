"""Scales: ends at round numbers, ticks inside them, bars from zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.report.scale import latency_scale, linear_scale, log_scale, tick_text, value_text


@given(st.floats(1e-6, 1e9))
def test_a_linear_scale_holds_its_largest_number_and_has_a_few_round_ticks(high):
    scale = linear_scale(high, 10.0, 500.0)
    assert scale(0.0) == 10.0
    assert 10.0 < scale(high) <= 500.0 + 1e-6
    assert 3 <= len(scale.ticks()) <= 12
    assert scale.ticks()[0] == 0.0


@given(st.floats(1e-4, 1e3), st.floats(1.01, 1e6))
def test_a_logarithmic_scale_holds_both_ends(low, factor):
    scale = log_scale(low, low * factor, 0.0, 100.0)
    assert 0.0 <= scale(low) <= scale(low * factor) <= 100.0
    assert scale.low <= low * (1 + 1e-9) and scale.high >= low * factor * (1 - 1e-9)
    assert len(scale.ticks()) >= 2


def test_only_wide_ranges_are_logarithmic():
    assert not latency_scale([10.0, 200.0], 0, 1).is_log
    assert latency_scale([10.0, 400.0], 0, 1).is_log
    assert latency_scale([], 0, 1).ticks()


@pytest.mark.parametrize(
    ("value", "tick", "shown"),
    [(0, "0", "0"), (1500, "1,500", "1,500"), (0.30000000000000004, "0.3", "0.3"), (2e6, "2M", "2,000,000")],
)
def test_numbers_are_written_as_people_write_them(value, tick, shown):
    assert (tick_text(value), value_text(value)) == (tick, shown)
