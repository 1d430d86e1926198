"""One set of values in numbers: centre, spread, shape and percentiles. Pure Python."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octavo.bench.statistics.order import Percentile, percentile
from octavo.bench.statistics.ratio import quantile

LEVELS = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """Attributes:
    mode: middle of the fullest bin (Freedman and Diaconis' width); of whole numbers the commonest one.
    sd, variance: of a sample, n - 1 in the denominator; None of one value, as is all that needs two.
    skew: third standardised moment, corrected for small n (Fisher's G1); None under three values or
        where all are equal.
    percentiles: p50, p90, p95 and p99; each may be refused for want of values.
    """

    n: int
    mean: float
    median: float
    mode: float
    sd: float | None
    variance: float | None
    smallest: float
    largest: float
    iqr: float
    skew: float | None
    percentiles: tuple[Percentile, ...]

    @property
    def spread(self) -> float:
        """The range: largest less smallest."""
        return self.largest - self.smallest

    def as_json(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "n",
                "mean",
                "median",
                "mode",
                "sd",
                "variance",
                "smallest",
                "largest",
                "iqr",
                "skew",
            )
        }
        numbers["range"] = self.spread
        for one in self.percentiles:
            numbers[one.name] = {"value": one.value, "low": one.low, "high": one.high, "needs": one.needs}
        return numbers


def describe(values: Sequence[float]) -> Description:
    """Everything about these values.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    if not values:
        raise ValueError("there is nothing to say of no values")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    mean = statistics.fmean(values)
    variance = statistics.variance(values) if len(values) > 1 else None
    return Description(
        n=len(values),
        mean=mean,
        median=statistics.median(values),
        mode=mode(values),
        sd=None if variance is None else math.sqrt(variance),
        variance=variance,
        smallest=min(values),
        largest=max(values),
        iqr=quantile(values, 0.75) - quantile(values, 0.25),
        skew=_skew(values, mean, variance),
        percentiles=tuple(percentile(values, level) for level in LEVELS),
    )


def mode(values: Sequence[float]) -> float:
    """The commonest value of whole numbers; else the middle of the fullest bin."""
    if all(float(value).is_integer() for value in values):
        counts = Counter(values)
        most = max(counts.values())
        return float(min(value for value, count in counts.items() if count == most))
    iqr = quantile(values, 0.75) - quantile(values, 0.25)
    width = 2 * iqr / math.cbrt(len(values))
    if width <= 0:
        return statistics.median(values)
    low = min(values)
    bins = Counter(math.floor((value - low) / width) for value in values)
    most = max(bins.values())
    fullest = min(index for index, count in bins.items() if count == most)
    return low + (fullest + 0.5) * width


def _skew(values: Sequence[float], mean: float, variance: float | None) -> float | None:
    n = len(values)
    if n < 3 or not variance:
        return None
    second = math.fsum((value - mean) ** 2 for value in values) / n
    third = math.fsum((value - mean) ** 3 for value in values) / n
    scale = second * math.sqrt(second)  # 0 where the spread is too small for its square
    return math.sqrt(n * (n - 1)) / (n - 2) * third / scale if scale else None
