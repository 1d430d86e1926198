"""How many threads the native kernels use: one number for the process, because there is one pool of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_num_threads: int | None = None


def kernel_threads() -> int:
    """Threads of each native kernel; as many as torch's, unless they were set."""
    return torch.get_num_threads() if _num_threads is None else _num_threads


def set_kernel_threads(count: int | None) -> None:
    """Give the kernels their own number; None: torch's again."""
    global _num_threads  # noqa: PLW0603  (the pool is as global as this)
    _num_threads = count


@contextmanager
def use_kernel_threads(count: int) -> Iterator[None]:
    """`count` threads for a while."""
    before = _num_threads
    set_kernel_threads(count)
    try:
        yield
    finally:
        set_kernel_threads(before)
