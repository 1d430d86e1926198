"""Some rounds of the kernels' fuzz; scripts/nightly runs thousands."""

from __future__ import annotations

import pytest

from octavo.compute.kernels import KernelTable
from tests.compute.kernels.fuzz import run_round
from tests.compute.kernels.threads import num_threads


@pytest.mark.parametrize("seed", range(8))
def test_random_shapes(native: KernelTable, seed: int) -> None:
    with num_threads(1 + seed % 2):
        run_round(native, seed)
