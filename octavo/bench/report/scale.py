"""From numbers to pixels, linear or logarithmic, with ticks at round numbers. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# From this ratio of largest to smallest an axis of latencies is logarithmic.
_LOG_FROM = 30.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Attributes:
    low, high: numbers at the ends; start, end: their pixels.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel; what lies outside is put at the nearer end."""
        if self.is_log:
            value, low, high = (math.log(max(one, self.low)) for one in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round numbers between the ends."""
        return _log_ticks(self.low, self.high) if self.is_log else linear_ticks(self.low, self.high, wanted)


def linear_scale(high: float, start: float, end: float, *, low: float = 0.0) -> Scale:
    """From `low` to a round number at or above `high`."""
    if high <= low:
        high = low + 1
    step = _step(high - low, 5)
    return Scale(low, low + step * math.ceil((high - low) / step - 1e-9), start, end)


def is_wide(values: Sequence[float]) -> bool:
    """Whether these numbers need a logarithmic axis."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > _LOG_FROM * min(positive)


def latency_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """From zero, or logarithmic where the values span more than a factor of 30."""
    if is_wide(values):
        positive = [value for value in values if value > 0]
        return log_scale(min(positive), max(positive), start, end)
    return linear_scale(max(values, default=1.0), start, end)


def log_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Ends at 1, 2 or 5 times a power of ten."""
    if high <= low:
        low, high = low / 2, high * 2
    return Scale(_round_log(low, up=False), _round_log(high, up=True), start, end, is_log=True)


def linear_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    step = _step(high - low, wanted)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + index) * step for index in range(count)]


def tick_text(value: float) -> str:
    """1,500 and 0.25, never 0.30000000000000004."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def value_text(value: float) -> str:
    """Three significant digits, in full from 100 on."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def _step(span: float, wanted: int) -> float:
    raw = span / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return float(next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9)) * power)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades <= 2.5 else (1,)
    found = []
    for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for factor in factors:
            value = factor * 10.0**power
            if low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                found.append(value)
    return found


def _round_log(value: float, *, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    steps = [factor * power for factor in (1, 2, 5, 10)]
    if up:
        return next(step for step in steps if step >= value * (1 - 1e-9))
    return [step for step in steps if step <= value * (1 + 1e-9)][-1]
