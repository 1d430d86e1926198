"""When each request is due: an open loop, fixed before anything is sent. Pure Python."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from octavo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """How requests arrive.

    Attributes:
        rate: requests a second; infinite sends all at once.
        burstiness: shape of the gamma-distributed gaps: 1 is Poisson, less is burstier, infinite is constant.
        is_rescaled: stretch the gaps so that the last request falls at exactly n / rate, as
            `vllm bench serve` does: slightly less random than Poisson.
    """

    rate: float = math.inf
    burstiness: float = 1.0
    is_rescaled: bool = False

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ConfigError(f"--request-rate must be above 0, not {self.rate:g}")
        if not self.burstiness > 0:
            raise ConfigError(f"--burstiness must be above 0, not {self.burstiness:g}")

    @property
    def about(self) -> str:
        """In words, for tables."""
        if math.isinf(self.rate):
            return "all at once"
        if math.isinf(self.burstiness):
            return f"{self.rate:g} requests/s, constant gaps"
        kind = "Poisson" if self.burstiness == 1 else f"gamma gaps of shape {self.burstiness:g}"
        return f"{self.rate:g} requests/s, {kind}"

    def due_seconds(self, num_requests: int, *, seed: int) -> list[float]:
        """Offsets from the start of the run, not falling; the first request is due after the first gap,
        but with constant gaps and with all at once at the start."""
        if math.isinf(self.rate):
            return [0.0] * num_requests
        if math.isinf(self.burstiness):
            return [number / self.rate for number in range(num_requests)]
        source = random.Random(f"{seed}/arrivals")
        due, now = [], 0.0
        for _ in range(num_requests):
            now += source.gammavariate(self.burstiness, 1 / (self.rate * self.burstiness))
            due.append(now)
        if self.is_rescaled and due and due[-1] > 0:
            factor = num_requests / self.rate / due[-1]
            due = [one * factor for one in due]
        return due
