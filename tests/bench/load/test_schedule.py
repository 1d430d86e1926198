"""Arrivals: seeded, of the rate and the variation that were asked for."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest

from octavo.bench.load.schedule import Arrivals
from octavo.errors import ConfigError


def gaps(arrivals: Arrivals, count: int = 4000) -> list[float]:
    due = [0.0, *arrivals.due_seconds(count, seed=1)]
    return [later - earlier for earlier, later in pairwise(due)]


@pytest.mark.parametrize("burstiness", [0.35, 1.0, 4.0])
def test_gaps_have_the_mean_and_the_variation(burstiness):
    drawn = gaps(Arrivals(rate=5.0, burstiness=burstiness))
    mean = statistics.fmean(drawn)
    assert mean == pytest.approx(0.2, rel=0.08)
    assert statistics.stdev(drawn) / mean == pytest.approx(burstiness**-0.5, rel=0.1)


def test_constant_all_at_once_and_rescaled():
    assert Arrivals(rate=4.0, burstiness=math.inf).due_seconds(3, seed=0) == [0.0, 0.25, 0.5]
    assert Arrivals().due_seconds(3, seed=0) == [0.0, 0.0, 0.0]
    rescaled = Arrivals(rate=4.0, is_rescaled=True).due_seconds(40, seed=0)
    assert rescaled[-1] == pytest.approx(10.0)
    assert rescaled == sorted(rescaled)


def test_the_seed_decides():
    arrivals = Arrivals(rate=2.0)
    assert arrivals.due_seconds(5, seed=3) == arrivals.due_seconds(5, seed=3)
    assert arrivals.due_seconds(5, seed=3) != arrivals.due_seconds(5, seed=4)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"rate": -1.0}, {"burstiness": 0.0}])
def test_what_is_no_rate_is_refused(wrong):
    with pytest.raises(ConfigError):
        Arrivals(**wrong)
