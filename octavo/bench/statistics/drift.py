"""Whether the machine itself changed under a measurement: a fixed calculation timed before and after."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

# A block whose surroundings changed by more than this is measured again.
LARGEST_DRIFT = 0.10
_NUM_REPEATS = 5
_NUM_ROUNDS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSample:
    """Attributes:
    calculation_ms: the fixed calculation, fastest of five.
    load_average: of the last minute.
    """

    calculation_ms: float
    load_average: float


def sample_noise() -> NoiseSample:
    """Time the fixed calculation: some ten milliseconds of one core."""
    fastest = min(_time_once() for _ in range(_NUM_REPEATS))
    return NoiseSample(calculation_ms=fastest * 1e3, load_average=os.getloadavg()[0])


def drift(before: NoiseSample, after: NoiseSample) -> float:
    """By how much the calculation's time changed, as a share of the faster: 0 for not at all."""
    times = before.calculation_ms, after.calculation_ms
    return max(times) / min(times) - 1


def has_drifted(before: NoiseSample, after: NoiseSample) -> bool:
    """Whether what lies between should be measured again."""
    return drift(before, after) > LARGEST_DRIFT


def _time_once() -> float:
    """Whole numbers alone: no memory is taken, and no library's threads take part."""
    started_seconds = time.perf_counter()
    state = 1
    for _ in range(_NUM_ROUNDS):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
    return time.perf_counter() - started_seconds
