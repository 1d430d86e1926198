"""Whether one thing is faster than another: paired blocks, an interval, and a size that matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from octavo.bench.statistics.ratio import paired_ratio

# A difference below this is called none, however narrow its interval.
SMALLEST_EFFECT = 0.03
# Fewer blocks carry no verdict, whatever their interval.
FEWEST_FOR_VERDICT = 5
# Below so many blocks a bootstrap interval is too narrow, and Student's t is printed.
FEWEST_FOR_BOOTSTRAP = 8
# With five blocks no two-sided sign-flip p is under 0.0625.
FEWEST_FOR_P = 6


class Verdict(StrEnum):
    """BETTER and WORSE are of the first of the two, in the metric's own direction."""

    BETTER = "better"
    WORSE = "worse"
    NO_EVIDENCE = "no evidence"
    TOO_FEW = "too few blocks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two things measured in the same blocks.

    Attributes:
        ratio: geometric mean of the blocks' ratios, first over second.
        low, high: its 95 % interval; None of fewer than two blocks.
        method: how the interval was found.
        p: of no difference, by flipping signs; None below six blocks.
        verdict: BETTER or WORSE only of five blocks or more, where the interval excludes 1 and the effect
            exceeds 3 %.
    """

    ratio: float
    low: float | None
    high: float | None
    num_blocks: int
    method: str
    p: float | None
    verdict: Verdict


def compare(
    first: Sequence[float], second: Sequence[float], *, higher_is_better: bool, seed: int = 0
) -> Comparison:
    """How `first` does against `second`, block by block.

    Raises:
        ValueError: no pairs, not as many of the one as of the other, or a value that is not above 0.
    """
    if any(not (math.isfinite(value) and value > 0) for value in (*first, *second)):
        raise ValueError("a ratio takes finite values above 0")
    by_t = paired_ratio(first, second)
    low, high, method, p = by_t.low, by_t.high, "Student's t on log-ratios", None
    logs = [math.log(top / bottom) for top, bottom in zip(first, second, strict=True)]
    if len(logs) >= FEWEST_FOR_P:
        # numpy is loaded only where it is needed
        from octavo.bench.statistics.resampling import bca_interval, sign_flip_p  # noqa: PLC0415

        p = sign_flip_p(logs, seed=seed)
        if len(logs) >= FEWEST_FOR_BOOTSTRAP:
            low, high = (math.exp(end) for end in bca_interval(logs, seed=seed))
            method = "BCa bootstrap of log-ratios, 10,000 resamples"
    if low is None or high is None:
        method = "none: one block"
    verdict = judge(by_t.mean, low, high, higher_is_better=higher_is_better)
    if len(logs) < FEWEST_FOR_VERDICT:
        verdict = Verdict.TOO_FEW
    return Comparison(
        ratio=by_t.mean,
        low=low,
        high=high,
        num_blocks=len(logs),
        method=method,
        p=p,
        verdict=verdict,
    )


def judge(ratio: float, low: float | None, high: float | None, *, higher_is_better: bool) -> Verdict:
    """The rule alone: the interval excludes 1, and the effect exceeds 3 % of whichever is smaller."""
    if low is None or high is None:
        return Verdict.TOO_FEW
    is_clear = low > 1 or high < 1
    is_large = max(ratio, 1 / ratio) > 1 + SMALLEST_EFFECT
    if not (is_clear and is_large):
        return Verdict.NO_EVIDENCE
    return Verdict.BETTER if (ratio > 1) == higher_is_better else Verdict.WORSE
