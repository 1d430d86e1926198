"""Every target against the first, condition by condition: what most experiments compare. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.bench.experiments.results import Results, comparison_row


def compare_targets(
    results: Results, metrics: Sequence[str], conditions: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The first target over each other one; nothing where there is only one."""
    live = results.live_targets
    rows = []
    for other in live[1:]:
        for condition in conditions if conditions is not None else results.conditions:
            for metric in metrics:
                found = results.compare(metric, (condition, live[0]), (condition, other))
                if found is not None:
                    rows.append(comparison_row(metric, live[0], other, found, group=condition))
    return rows


def compare_conditions(
    results: Results, metrics: Sequence[str], baseline: str, conditions: Sequence[str]
) -> list[dict[str, Any]]:
    """Each condition over the baseline, on every target."""
    rows = []
    for target in results.live_targets:
        for condition in conditions:
            for metric in metrics:
                if condition == baseline:
                    continue
                found = results.compare(metric, (condition, target), (baseline, target))
                if found is not None:
                    group = target if len(results.live_targets) > 1 else ""
                    rows.append(comparison_row(metric, condition, baseline, found, group=group))
    return rows


def cell(values: Sequence[float], digits: int = 1) -> str:
    """Mean over blocks, and the smallest and largest where there is more than one."""
    if not values:
        return "–"
    mean = sum(values) / len(values)
    text = f"{mean:,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
