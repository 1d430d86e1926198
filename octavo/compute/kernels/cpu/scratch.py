"""Memory for what kernels calculate: torch's own, or, while a pass is recorded, buffers that stay.

A recorded call runs again with the addresses that it was recorded with, so these must not move; and what it
reads must have been written by calls of the same recording. Both are seen to here.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Buffers:
    """The buffers of one recording, each with room for `capacity` rows.

    Attributes:
        is_closed: every input of every call so far lay in these buffers: the recording stands by itself.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.is_closed = True
        self._buffers: list[Tensor] = []
        self._next = 0

    def take(self, num_rows: int, shape: tuple[int, ...]) -> Tensor:
        """The next buffer's first rows, [num_rows, *shape]."""
        size = self.capacity * math.prod(shape)
        free = self._buffers[self._next :]
        found = next((i for i, buffer in enumerate(free) if buffer.numel() >= size), None)
        if found is None:
            self._buffers.insert(self._next, torch.empty(size))
        else:
            self._buffers.insert(self._next, self._buffers.pop(self._next + found))
        buffer = self._buffers[self._next]
        self._next += 1
        return buffer[:size].view(self.capacity, *shape)[:num_rows]

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Buffers that are taken inside may be taken again after it."""
        first = self._next
        try:
            yield
        finally:
            self._next = first

    def holds(self, x: Tensor) -> bool:
        start = x.data_ptr()
        return any(b.data_ptr() <= start < b.data_ptr() + b.nbytes for b in self._buffers)

    def poison(self) -> None:
        """Fill all with NaN: what is read before it is written shows."""
        for buffer in self._buffers:
            buffer.fill_(torch.nan)


class Scratch(threading.local):
    """Where this thread's kernels put what they calculate.

    Attributes:
        buffers: those of the recording that is being made, or None.
    """

    buffers: Buffers | None = None

    def empty(self, num_rows: int, *shape: int) -> Tensor:
        """float32 [num_rows, *shape], contiguous, not filled."""
        if self.buffers is None:
            return torch.empty((num_rows, *shape), dtype=torch.float32)
        return self.buffers.take(num_rows, shape)

    def reads(self, *inputs: Tensor) -> None:
        """Must be told of what a kernel reads of a step's numbers, or changes in place."""
        if self.buffers is not None and not all(self.buffers.holds(x) for x in inputs):
            self.buffers.is_closed = False
