"""The experiments by name."""

from __future__ import annotations

from octavo.bench.experiments.ablation import Ablation
from octavo.bench.experiments.batching import Batching
from octavo.bench.experiments.experiment import Experiment
from octavo.bench.experiments.latency_cdf import LatencyCdf
from octavo.bench.experiments.length_variance import LengthVariance
from octavo.bench.experiments.memory_waste import MemoryWaste
from octavo.bench.experiments.overview_table import OverviewTable, SingleUser
from octavo.bench.experiments.rate_curve import RateCurve
from octavo.bench.experiments.scaling import Scaling
from octavo.bench.experiments.sensitivity import Sensitivity
from octavo.bench.experiments.sharing_gain import Sharing
from octavo.bench.experiments.traced import Trace

_ALL: tuple[Experiment, ...] = (
    LengthVariance(),
    LatencyCdf(),
    RateCurve(),
    MemoryWaste(),
    Sharing(),
    Batching(),
    OverviewTable(),
    SingleUser(),
    Scaling(),
    Sensitivity(),
    Ablation(),
    Trace(),
)
EXPERIMENTS = {one.name: one for one in _ALL}
