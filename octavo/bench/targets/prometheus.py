"""Reads a metrics page (Prometheus text format) as far as a benchmark needs it: sums over labels."""

from __future__ import annotations

import re

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)")


def read_samples(page: str) -> dict[str, float]:
    """Metric -> its value, summed over its labels; the buckets of histograms are left out."""
    values: dict[str, float] = {}
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match is None or match[1].endswith("_bucket"):
            continue
        try:
            values[match[1]] = values.get(match[1], 0.0) + float(match[2])
        except ValueError:
            continue
    return values
