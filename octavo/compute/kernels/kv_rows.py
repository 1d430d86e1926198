"""How a cache row, one token's key or value of one head, lies in memory. Contract: signatures.WriteKv."""

from __future__ import annotations

import torch

INT8_LEVELS = 127


def scale_bytes(dtype: torch.dtype) -> int:
    """Bytes beside a row's numbers: int8 rows end with the float32 that their numbers are multiplied by."""
    return torch.float32.itemsize if dtype is torch.int8 else 0


def row_size(dtype: torch.dtype, head_dim: int) -> int:
    """The last dim of the cache's blocks: elements of a row, its scale included."""
    return head_dim + scale_bytes(dtype) // dtype.itemsize
