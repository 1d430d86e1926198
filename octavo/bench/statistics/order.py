"""Percentiles with intervals that assume nothing of the distribution, refused where n cannot carry them.

Order statistics: the number of values below the true quantile is binomial, so two ranks hold it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.bench.statistics.ratio import quantile

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile of n values.

    Attributes:
        level: 0.99 for p99.
        value: None where n is too small to say it.
        low, high: order-statistic interval; None where the value is.
        needs: how many values it takes.
    """

    level: float
    value: float | None
    low: float | None
    high: float | None
    needs: int

    @property
    def name(self) -> str:
        """ "p99", "p99.9"."""
        return f"p{100 * self.level:g}"


def num_needed(level: float) -> int:
    """Values without which the largest of them bounds this quantile with less than 95 %: 59 for p95.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"a quantile's level lies between 0 and 1, not at {level:g}")
    extreme = max(level, 1 - level)
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(extreme))


def percentile(values: Sequence[float], level: float) -> Percentile:
    """The quantile, where there are enough values for it, and the ranks around it."""
    needs = num_needed(level)
    if len(values) < needs:
        return Percentile(level, None, None, None, needs)
    ordered = sorted(values)
    low_rank, high_rank = interval_ranks(len(ordered), level)
    return Percentile(
        level,
        quantile(ordered, level),
        ordered[low_rank - 1],
        ordered[high_rank - 1],
        needs,
    )


def interval_ranks(n: int, level: float) -> tuple[int, int]:
    """Ranks, counted from 1, between which the quantile lies: at most 2.5 % beyond each end.

    Where no rank leaves 2.5 %, the outermost stands, which bounds that one side with 95 %.

    Raises:
        ValueError: n is below `num_needed(level)`.
    """
    if n < num_needed(level):
        raise ValueError(f"{n} values do not bound the quantile at {level:g}")
    tail = (1 - CONFIDENCE) / 2
    fewer = 0.0  # P(fewer than `rank` values lie below the quantile): then this rank's lies above it
    low, high = 1, n
    for rank, chance in enumerate(_binomial(n, level)[:n], start=1):
        fewer += chance
        if fewer <= tail:
            low = rank
        if 1 - fewer <= tail:
            high = rank
            break
    return low, high


def _binomial(n: int, p: float) -> list[float]:
    """P(0) .. P(n), through logarithms: n may be many thousands."""
    log_p, log_q = math.log(p), math.log1p(-p)
    log_n = math.lgamma(n + 1)
    return [
        math.exp(log_n - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_p + (n - k) * log_q)
        for k in range(n + 1)
    ]
