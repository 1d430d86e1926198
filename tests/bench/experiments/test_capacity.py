"""Knees: where a limit is first passed, and how far that can be said."""

from __future__ import annotations

import pytest

from octavo.bench.experiments.capacity import find_knee
from octavo.bench.experiments.catalogue import EXPERIMENTS
from octavo.bench.experiments.size import extent_of


def test_a_knee_lies_between_the_rates_around_the_limit():
    knee = find_knee([1.0, 2.0, 4.0], [10.0, 20.0, 60.0], 40.0)
    assert knee.rate == pytest.approx(3.0)
    assert not knee.is_beyond
    assert find_knee([4.0, 1.0, 2.0], [60.0, 10.0, 20.0], 40.0) == knee


def test_a_limit_that_is_kept_throughout_says_only_that_the_knee_lies_beyond():
    knee = find_knee([1.0, 2.0], [10.0, 20.0], 40.0)
    assert (knee.rate, knee.is_beyond) == (2.0, True)


def test_a_limit_that_is_never_kept_has_no_knee():
    assert find_knee([1.0, 2.0], [50.0, 60.0], 40.0) is None
    assert find_knee([], [], 40.0) is None


def test_full_sizes_have_the_blocks_that_a_verdict_takes():
    for size in ("full", "paper"):
        for experiment in EXPERIMENTS:
            assert extent_of(size, experiment).num_blocks >= 5
