"""A mean over few repeats, with Student's 95 % interval. Pure Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.bench.statistics.ratio import t_value


@dataclass(frozen=True, slots=True)
class Estimate:
    """Attributes:
    low, high: 95 % interval of the mean; None of fewer than two values.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def estimate_mean(values: Sequence[float]) -> Estimate:
    """Raises ValueError: there are no values."""
    if not values:
        raise ValueError("there is no mean of no values")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, None, None, 1)
    margin = t_value(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - margin, mean + margin, len(values))
