"""Some rounds of the kernels' fuzz; scripts/nightly runs thousands."""

from __future__ import annotations

import pytest
import torch

from octavo.compute.kernels import KernelTable
from tests.compute.kernels.fuzz import run_round


@pytest.mark.parametrize("seed", range(8))
def test_random_shapes(native: KernelTable, seed: int) -> None:
    torch.set_num_threads(1 + seed % 2)  # put back by the fixture `one_thread`
    run_round(native, seed)
