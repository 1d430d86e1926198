"""Sets the number of threads of the kernels and of torch for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from octavo.compute.kernels.cpu.threads import use_kernel_threads


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with use_kernel_threads(count):
            yield
    finally:
        torch.set_num_threads(before)
