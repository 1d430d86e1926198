"""Quantiles, and ratios of things measured in pairs with Student's interval. Pure Python: quick to load."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, two-sided 95 %, by degrees of freedom; beyond the table the normal distribution's value.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
_T_95_LARGE = 1.96


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which this fraction lies, interpolated between the two nearest.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is no quantile of no values")
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two things measured in pairs.

    Attributes:
        mean: geometric mean of the pairs' ratios.
        low, high: its 95 % interval, Student's t on the logarithms; None of fewer than two pairs.
    """

    mean: float
    low: float | None
    high: float | None
    num_pairs: int


def t_value(degrees_of_freedom: int) -> float:
    """Student's t, two-sided 95 %; the normal distribution's beyond 14 degrees."""
    return _T_95[degrees_of_freedom - 1] if degrees_of_freedom <= len(_T_95) else _T_95_LARGE


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """How many times larger the first of each pair is than the second.

    Raises:
        ValueError: no pairs, or not as many of the one as of the other.
    """
    logs = [math.log(top / bottom) for top, bottom in zip(numerators, denominators, strict=True)]
    if not logs:
        raise ValueError("there is no ratio of no pairs")
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(mean), None, None, 1)
    margin = t_value(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin), len(logs))
