"""Measures what laying a model's matrices out for its kernels costs when it loads."""

from __future__ import annotations

import time
from collections.abc import Sequence

from octavo.compute.kernels.signatures import LinearWeight, PackWeight
from octavo.compute.quantization.matrix import StoredWeight


class PackingMeter:
    """Packs as the function that it is given. See signatures.PackWeight.

    Attributes:
        num_seconds: spent in that function so far.
        num_bytes: of the matrices that it made.
        largest_bytes: of the largest one, which for a moment is in memory twice.
    """

    def __init__(self, pack_weight: PackWeight) -> None:
        self._pack_weight = pack_weight
        self.num_seconds = 0.0
        self.num_bytes = 0
        self.largest_bytes = 0

    def __call__(self, matrices: Sequence[StoredWeight]) -> LinearWeight:
        started_seconds = time.perf_counter()
        weight = self._pack_weight(matrices)
        self.num_seconds += time.perf_counter() - started_seconds
        num_bytes = sum(part.data.nbytes for part in weight.parts)
        self.num_bytes += num_bytes
        self.largest_bytes = max(self.largest_bytes, num_bytes)
        return weight
