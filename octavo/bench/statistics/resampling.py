"""Bootstrap and permutation: what can be said from repeats without assuming a distribution.

The run is the unit of replication, so requests are only ever resampled inside of resampled blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 10_000
_TAIL = 0.025
# Up to so many blocks all patterns of signs are counted; beyond, they are drawn.
_MOST_EXACT = 16
_BAND_RESAMPLES = 500


def bca_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean: bias-corrected and accelerated bootstrap (Efron 1987), 10,000 resamples.

    Raises:
        ValueError: there are fewer than two values.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n < 2:
        raise ValueError("an interval takes two values or more")
    if float(np.ptp(sample)) == 0.0:
        return float(sample[0]), float(sample[0])
    draw = np.random.default_rng(seed)
    means = sample[draw.integers(0, n, size=(NUM_RESAMPLES, n))].mean(axis=1)
    centre = sample.mean()
    # Ties count half: with few values many resamples have exactly the sample's mean.
    share = (np.count_nonzero(means < centre) + 0.5 * np.count_nonzero(means == centre)) / NUM_RESAMPLES
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(float(share), 1 / NUM_RESAMPLES), 1 - 1 / NUM_RESAMPLES))
    without_one = (sample.sum() - sample) / (n - 1)
    from_mean = without_one.mean() - without_one
    acceleration = float((from_mean**3).sum() / (6 * (from_mean**2).sum() ** 1.5))
    ends = []
    for tail in (_TAIL, 1 - _TAIL):
        place = bias + normal.inv_cdf(tail)
        ends.append(normal.cdf(bias + place / (1 - acceleration * place)))
    low, high = np.quantile(means, ends)
    return float(low), float(high)


def sign_flip_p(values: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p that the mean of these differences is 0, by flipping their signs.

    Exact up to 16 values; beyond, of 100,000 random patterns with the observed one among them.

    Raises:
        ValueError: there are no values.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n == 0:
        raise ValueError("there is no p of no values")
    if n <= _MOST_EXACT:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        sums = np.abs(np.where(patterns == 1, sample, -sample).sum(axis=1))
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(100_000 - 1, n))
        sums = np.abs(np.append(signs @ sample, sample.sum()))
    # Sums of the same numbers in another order may differ in their last bits.
    return float(np.mean(sums >= abs(float(sample.sum())) * (1 - 1e-12)))


def block_quantile_interval(
    blocks: Sequence[Sequence[float]], level: float, *, num_resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a quantile over all requests: blocks are resampled, then requests within each.

    Raises:
        ValueError: there are fewer than two blocks, or one is empty.
    """
    draw = np.random.default_rng(seed)
    found = [float(np.quantile(sample, level)) for sample in _resampled_blocks(blocks, num_resamples, draw)]
    low, high = np.quantile(found, (_TAIL, 1 - _TAIL))
    return float(low), float(high)


def ecdf_band(
    blocks: Sequence[Sequence[float]], places: Sequence[float], *, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Pointwise 95 % band of the empirical distribution function at `places`: blocks, then requests.

    With one block the requests alone are resampled, which is too narrow where they depend on each other.

    Raises:
        ValueError: there are no blocks, or one is empty.
    """
    draw = np.random.default_rng(seed)
    grid = np.asarray(places, dtype=np.float64)
    curves = np.stack(
        [
            np.searchsorted(np.sort(sample), grid, side="right") / len(sample)
            for sample in _resampled_blocks(blocks, _BAND_RESAMPLES, draw, fewest=1)
        ]
    )
    low, high = np.quantile(curves, (_TAIL, 1 - _TAIL), axis=0)
    return [float(one) for one in low], [float(one) for one in high]


def _resampled_blocks(
    blocks: Sequence[Sequence[float]], num_resamples: int, draw: np.random.Generator, *, fewest: int = 2
) -> list[NDArray[np.float64]]:
    arrays = [np.asarray(block, dtype=np.float64) for block in blocks]
    if len(arrays) < fewest or any(len(array) == 0 for array in arrays):
        raise ValueError(f"it takes {fewest} blocks or more, and values in each")
    samples = []
    for _ in range(num_resamples):
        chosen = draw.integers(0, len(arrays), size=len(arrays))
        parts = [arrays[index][draw.integers(0, len(arrays[index]), len(arrays[index]))] for index in chosen]
        samples.append(np.concatenate(parts))
    return samples
