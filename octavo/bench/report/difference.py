"""Two results of the same experiment beside each other, metric by metric: what `octavo bench diff` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.bench.statistics.verdict import Comparison, Verdict, compare
from octavo.errors import ConfigError

# Settings that make the same blocks the same work.
_SAME = ("experiment", "size", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of one condition and target, after over before."""

    condition: str
    target: str
    metric: str
    label: str
    found: Comparison

    @property
    def is_regression(self) -> bool:
        """Worse beyond the interval and beyond 3 %."""
        return self.found.verdict is Verdict.WORSE


def compare_documents(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every metric that both have, in the blocks that both have.

    Blocks are paired by their seed; that the two ran at different times is not paired away.

    Raises:
        ConfigError: they are of different experiments, sizes or seeds, or have nothing in common.
    """
    for name in _SAME:
        old, new = before["settings"].get(name), after["settings"].get(name)
        if old != new:
            raise ConfigError(f"the two have not the same {name}: {old!r} and {new!r}")
    olds = {(one["condition"], one["target"], one["metric"]): one for one in before["measures"]}
    found = []
    for new in after["measures"]:
        key = new["condition"], new["target"], new["metric"]
        if key not in olds:
            continue
        pairs = _pair(olds[key], new)
        if pairs:
            about = after["metrics"][new["metric"]]
            found.append(
                Difference(
                    condition=new["condition"],
                    target=new["target"],
                    metric=new["metric"],
                    label=about["label"],
                    found=compare(
                        [later for _, later in pairs],
                        [earlier for earlier, _ in pairs],
                        higher_is_better=about["higher_is_better"],
                    ),
                )
            )
    if not found:
        raise ConfigError("the two have no measure in common")
    return found


def _pair(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(before, after) of each block that both have, where a ratio can be told."""
    olds = dict(zip(before["blocks"], before["values"], strict=True))
    news = dict(zip(after["blocks"], after["values"], strict=True))
    return [
        (olds[block], news[block])
        for block in sorted(olds.keys() & news.keys())
        if olds[block] > 0 and news[block] > 0
    ]
