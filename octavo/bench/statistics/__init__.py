"""What is said of a set of measurements. The parts that resample load numpy, and are imported by name."""

from octavo.bench.statistics.ratio import Ratio, paired_ratio, quantile

__all__ = ["Ratio", "paired_ratio", "quantile"]
