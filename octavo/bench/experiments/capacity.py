"""How many requests a second a workload allows: measured by sending all at once, and rates made of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from octavo.bench.experiments.results import Results

BURST = "all at once"


def burst_name(workload: str) -> str:
    return f"{workload}, {BURST}"


def capacity(results: Results, condition: str) -> float:
    """Requests a second of the first target that has any, mean of its blocks; 1 where none has.

    One target's capacity sets the rates of all, so that all see the same schedule.
    """
    for target in results.live_targets:
        values = results.values(condition, target, "req_s")
        if values:
            return statistics.fmean(values)
    return 1.0


@dataclass(frozen=True, slots=True)
class Knee:
    """Attributes:
    rate: the highest at which the limit is kept, between two rates by interpolation.
    is_beyond: the limit was kept at the highest rate measured: the knee lies further out.
    """

    rate: float
    is_beyond: bool


def find_knee(rates: Sequence[float], values: Sequence[float], limit: float) -> Knee | None:
    """Where the values first cross the limit; None where not even the first rate keeps it."""
    points = sorted(zip(rates, values, strict=True))
    if not points or points[0][1] > limit:
        return None
    for (rate, value), (next_rate, next_value) in pairwise(points):
        if next_value > limit:
            share = (limit - value) / (next_value - value)
            return Knee(rate + share * (next_rate - rate), is_beyond=False)
    return Knee(points[-1][0], is_beyond=True)
