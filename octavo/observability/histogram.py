"""A histogram that is cheap to fill: one bisection a value, no locks, no labels.

Cumulated only when it is read, in the form that Prometheus wants.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Histogram:
    """Counts of values by upper bound.

    Attributes:
        bounds: rising upper bounds; values above the last are counted as infinite.
        total: sum of all values seen.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float, count: int = 1) -> None:
        """Count `value`, `count` times."""
        self._counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    @property
    def num_values(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound as text, values at or below it), ending with ('+Inf', all)."""
        names = [f"{bound:g}" for bound in self.bounds] + ["+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))
