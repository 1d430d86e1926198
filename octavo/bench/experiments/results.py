"""What runs brought, as the store keeps it and the experiments' conclusions read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from octavo.bench.experiments.measures import METRICS, RequestTimes
from octavo.bench.statistics.verdict import Comparison, compare


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """One run of one condition against one target in one block.

    Attributes:
        metrics: by name; see measures.METRICS.
        steps: columns of the target's steps; start_ms and end_ms count from the start of the run.
        errors: one line for each request that failed or had not all of its tokens.
        drift: change of a fixed calculation across the run, as a share.
        num_repeats: times that it was done again because the machine changed.
    """

    condition: str
    target: str
    block: int
    metrics: dict[str, float]
    requests: list[RequestTimes]
    steps: dict[str, list[float]] = field(default_factory=dict)
    stats: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    drift: float = 0.0
    load_average: float = 0.0
    num_repeats: int = 0
    is_client_bound: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        return self.condition, self.target, self.block

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> RunOutcome:
        """Raises TypeError, KeyError: it is no outcome."""
        requests = [RequestTimes(**one) for one in kept["requests"]]
        return cls(**(kept | {"requests": requests}))


class Results:
    """All outcomes of an experiment; those of discarded blocks are kept on disk, and not counted here.

    Args:
        num_discarded: first blocks that warm up.
    """

    def __init__(self, targets: Sequence[str], num_discarded: int) -> None:
        self.targets = tuple(targets)
        self.num_discarded = num_discarded
        self.calculated: dict[str, Any] = {}
        self.failures: dict[str, str] = {}  # target -> the line that ended it
        self._outcomes: dict[tuple[str, str, int], RunOutcome] = {}

    def add(self, outcome: RunOutcome) -> None:
        self._outcomes[outcome.key] = outcome

    def has(self, condition: str, target: str, block: int) -> bool:
        return (condition, target, block) in self._outcomes

    @property
    def outcomes(self) -> list[RunOutcome]:
        """Of the blocks that count, in the order in which they were added."""
        return [one for one in self._outcomes.values() if one.block >= self.num_discarded]

    @property
    def conditions(self) -> list[str]:
        """Those that brought anything."""
        return list(dict.fromkeys(one.condition for one in self.outcomes))

    @property
    def live_targets(self) -> list[str]:
        """Targets that brought anything."""
        found = {one.target for one in self.outcomes if one.metrics}
        return [name for name in self.targets if name in found]

    def of(self, condition: str, target: str) -> list[RunOutcome]:
        """Block by block."""
        found = [one for one in self.outcomes if (one.condition, one.target) == (condition, target)]
        return sorted(found, key=lambda one: one.block)

    def values(self, condition: str, target: str, metric: str) -> list[float]:
        """One value a block, of those that have it."""
        return [one.metrics[metric] for one in self.of(condition, target) if metric in one.metrics]

    def request_values(self, condition: str, target: str, name: str) -> list[list[float]]:
        """A field of RequestTimes, for each block its requests'; blocks without any are left out."""
        blocks = [
            [float(value) for one in run.requests if (value := getattr(one, name)) is not None]
            for run in self.of(condition, target)
        ]
        return [block for block in blocks if block]

    def compare(self, metric: str, first: tuple[str, str], second: tuple[str, str]) -> Comparison | None:
        """Two (condition, target) in the blocks that both have; None where there are none."""
        ones = {one.block: one.metrics.get(metric) for one in self.of(*first)}
        others = {one.block: one.metrics.get(metric) for one in self.of(*second)}
        pairs = [(ones[block], others[block]) for block in sorted(ones.keys() & others.keys())]
        pairs = [(one, other) for one, other in pairs if one and other]
        if not pairs:
            return None
        return compare(
            [float(one) for one, _ in pairs if one is not None],
            [float(other) for _, other in pairs if other is not None],
            higher_is_better=METRICS[metric].higher_is_better,
        )


def comparison_row(
    metric: str, of: str, against: str, found: Comparison, *, group: str = ""
) -> dict[str, Any]:
    """A comparison as results.json keeps it."""
    return {
        "metric": metric,
        "label": METRICS[metric].label,
        "of": of,
        "against": against,
        "group": group,
        **asdict(found),
    }
