"""Lengths and arrival times as the experiments' sources drew them, seeded. Pure Python."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

TRACES = ("azure2023_conv", "azure2023_code", "mooncake_conversation")

# Gamma shapes of the traces' gaps: as a whole, inside busy stretches, and Mooncake's counts per tick.
GAP_SHAPES = {"azure2023_conv": 0.871, "azure2023_code": 0.35, "mooncake_conversation": 1.0}
ANYSCALE_MEAN = 128.0


def capped_exponential(draw: random.Random, *, mean: float, cap: int) -> int:
    """A length of the Anyscale benchmark: exponential, samples above the cap drawn again, 0 served as 1."""
    while True:
        length = draw.expovariate(1 / mean)
        if length <= cap:
            return max(1, round(length))


def quantile_length(draw: random.Random, table: Sequence[float]) -> float:
    """A length of a trace's inverse distribution function, given at 0, 1 .. 100 %."""
    place = draw.random() * (len(table) - 1)
    low = min(int(place), len(table) - 2)
    return table[low] + (place - low) * (table[low + 1] - table[low])


def gaps_seconds(draw: random.Random, *, rate: float, shape: float, count: int) -> list[float]:
    """Times between arrivals, of mean 1/rate: gamma, Poisson arrivals at shape 1, bursts below it."""
    return [draw.gammavariate(shape, 1 / (rate * shape)) for _ in range(count)]


def arrival_seconds(draw: random.Random, *, rate: float, shape: float, count: int) -> list[float]:
    """When each request is due; the first at once."""
    times, now = [0.0], 0.0
    for gap in gaps_seconds(draw, rate=rate, shape=shape, count=count - 1):
        now += gap
        times.append(now)
    return times[:count]


@cache
def data_file(name: str) -> Any:
    """One of the package's data files in JSON; data/README.md says where they are from."""
    return json.loads(resources.files("octavo.bench").joinpath(f"data/{name}").read_text("utf-8"))


def trace_table(trace: str, what: str) -> list[float]:
    """101 quantiles of "prompt" or "response" tokens."""
    table: list[float] = data_file("length_quantiles.json")[trace][what]
    return table


def expected(cap: int) -> dict[str, float] | None:
    """What theory says of the capped exponential lengths at the full scale; None of other caps."""
    found: dict[str, float] | None = data_file("theory_expectations.json")["by_cap"].get(str(cap))
    return found
