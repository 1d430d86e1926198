"""Verdicts: an interval that excludes 1 and an effect above 3 %, or there is no evidence."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.statistics.drift import NoiseSample, drift, has_drifted, sample_noise
from octavo.bench.statistics.verdict import Verdict, compare, judge


def test_a_clear_difference_is_told_in_the_metrics_own_direction():
    fast, slow = [20.0, 22.0, 21.0, 20.5, 21.5], [10.0, 11.0, 10.4, 10.3, 10.7]
    found = compare(fast, slow, higher_is_better=True)
    assert found.verdict is Verdict.BETTER
    assert found.ratio == pytest.approx(2.0, rel=0.02)
    assert compare(fast, slow, higher_is_better=False).verdict is Verdict.WORSE
    assert compare(slow, fast, higher_is_better=True).verdict is Verdict.WORSE


def test_a_small_effect_is_no_evidence_however_sure():
    slow = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    found = compare([value * 1.02 for value in slow], slow, higher_is_better=True)
    assert found.low > 1
    assert found.verdict is Verdict.NO_EVIDENCE
    assert judge(1.031, 1.01, 1.06, higher_is_better=True) is Verdict.BETTER
    assert judge(0.975, 0.96, 0.99, higher_is_better=True) is Verdict.NO_EVIDENCE
    assert judge(1.5, 0.99, 2.3, higher_is_better=True) is Verdict.NO_EVIDENCE


def test_the_method_goes_with_the_number_of_blocks():
    draw = random.Random(7)
    pairs = [(draw.uniform(1.0, 1.4), 1.0) for _ in range(8)]

    def method(count):
        found = compare([a for a, _ in pairs[:count]], [b for _, b in pairs[:count]], higher_is_better=True)
        return found.method.split()[0], found.p is None, found.low is None

    assert method(1) == ("none:", True, True)
    assert method(5) == ("Student's", True, False)
    assert method(6) == ("Student's", False, False)
    assert method(8) == ("BCa", False, False)
    assert compare([2.0], [1.0], higher_is_better=True).verdict is Verdict.TOO_FEW


def test_noise_alone_is_seldom_called_a_difference():
    draw = random.Random(8)
    called = 0
    for _ in range(200):
        first, second = ([math.exp(draw.gauss(0.0, 0.1)) for _ in range(6)] for _ in range(2))
        called += compare(first, second, higher_is_better=True).verdict is not Verdict.NO_EVIDENCE
    assert called <= 18


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=9))
def test_turning_the_pair_round_turns_ratio_interval_and_verdict_round(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there = compare(first, second, higher_is_better=True)
    back = compare(second, first, higher_is_better=True)
    assert back.ratio == pytest.approx(1 / there.ratio)
    if len(pairs) < 8:
        assert back.low == pytest.approx(1 / there.high)
        verdicts = {there.verdict, back.verdict}
        if len(pairs) < 5:
            assert verdicts == {Verdict.TOO_FEW}
        else:
            assert verdicts in ({Verdict.NO_EVIDENCE}, {Verdict.BETTER, Verdict.WORSE})


def test_what_has_no_ratio_is_refused():
    for first, second in (([1.0, 0.0], [1.0, 1.0]), ([float("nan")], [1.0]), ([], [])):
        with pytest.raises(ValueError, match=r"above 0|no pairs"):
            compare(first, second, higher_is_better=True)


def test_drift_is_the_change_of_a_fixed_calculation():
    calm, slow = (NoiseSample(calculation_ms=ms, load_average=0.5) for ms in (10.0, 11.5))
    assert drift(calm, slow) == drift(slow, calm) == pytest.approx(0.15)
    assert has_drifted(calm, slow)
    assert not has_drifted(calm, NoiseSample(calculation_ms=10.9, load_average=9.0))
    sample = sample_noise()
    assert 0.1 < sample.calculation_ms < 5_000
