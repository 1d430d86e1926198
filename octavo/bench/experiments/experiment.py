"""What an experiment is: a question, conditions to run under, and what is said of the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from octavo.bench.experiments.size import Extent
from octavo.bench.targets.target import BenchRequest

if TYPE_CHECKING:
    from octavo.bench.experiments.results import Results
    from octavo.build import TextParts
    from octavo.config import EngineConfig

# How requests reach a target; see policies.py.
OPEN_LOOP = "open-loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRequest:
    """A request and when it is due, in nanoseconds from the start of its run."""

    due_ns: int
    request: BenchRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What prompts are made of.

    Attributes:
        token_ids: ordinary tokens.
        decode: their text, for targets that take no ids.
        max_model_len: longest context in tokens.
    """

    token_ids: Sequence[int]
    decode: Callable[[Sequence[int]], str]
    max_model_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What an experiment is run with.

    Attributes:
        config: of Octavo's own engine; experiments that look inside build theirs from it.
        kv_bytes_per_token: of the model's keys and values in 16 bits, over all layers.
    """

    size: str
    extent: Extent
    seed: int
    config: EngineConfig
    text: TextParts
    kv_bytes_per_token: int
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way to run: a workload, how it is sent, and what differs in the engine.

    Attributes:
        load: requests by the block's seed; the same for every target.
        overrides: settings of Octavo's engine that differ from the command line's, by field name.
        group: what it is compared within; figures have a panel for each.
    """

    name: str
    load: Callable[[int], list[TimedRequest]]
    policy: str = OPEN_LOOP
    policy_rows: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One quantity: what theory says, what a paper or post claimed, what came out here.

    Attributes:
        remark: how they fit, or why they cannot be compared.
    """

    quantity: str
    predicted: str = "–"
    claimed: str = "–"
    source: str = ""
    measured: str = "–"
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is said of the results.

    Attributes:
        panels: figures as data, drawn by octavo/bench/report.
        comparisons: ratios with interval and verdict; see results.py.
    """

    predictions: Sequence[Prediction] = ()
    panels: Sequence[Mapping[str, Any]] = ()
    comparisons: Sequence[Mapping[str, Any]] = ()
    tables: Sequence[Table] = ()
    threats: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Experiment(Protocol):
    """One experiment.

    Attributes:
        title: for people; `name` is the command line's.
        hypothesis: what is expected, and why.
        design: what is run, in a few sentences.
        needs_octavo: it varies Octavo's own engine, so that other targets have no part in it.
    """

    name: str
    title: str
    hypothesis: str
    design: str
    needs_octavo: bool

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        """Conditions, phase after phase: later ones may depend on what earlier ones brought."""
        ...

    def calculate(self, setup: Setup) -> dict[str, Any]:
        """What takes no target: simulations and arithmetic. Empty where there is none."""
        ...

    def conclude(self, setup: Setup, results: Results) -> Findings:
        """Say what came out; called with whatever there is, even after a crash."""
        ...
