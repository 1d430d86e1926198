"""Native rotary positions. Contract: signatures.Rotate."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_dense, check_rows
from octavo.compute.kernels.cpu.threads import kernel_threads


def rotate(
    library: NativeLibrary, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, positions: Tensor
) -> None:
    num_tokens, num_heads, head_dim = query.shape
    max_positions = cos.shape[0]
    check_rows("query", query, 3)
    check_rows("key", key, 3)
    check_dense("cos", cos, torch.float32, (max_positions, head_dim // 2))
    check_dense("sin", sin, torch.float32, (max_positions, head_dim // 2))
    check_dense("positions", positions, torch.int64, (num_tokens,))
    if key.shape != (num_tokens, key.shape[1], head_dim) or head_dim % 2:
        raise ValueError(f"key has shape {tuple(key.shape)}, query {tuple(query.shape)}")
    library.scratch.reads(query, key)
    wrong_token = library.functions.octavo_rotate(
        library.isa,
        query.data_ptr(),
        num_heads,
        query.stride(0),
        query.stride(1),
        key.data_ptr(),
        key.shape[1],
        key.stride(0),
        key.stride(1),
        cos.data_ptr(),
        sin.data_ptr(),
        positions.data_ptr(),
        max_positions,
        num_tokens,
        head_dim,
        kernel_threads(),
    )
    if wrong_token:
        raise IndexError(
            f"token {wrong_token - 1} of the step has a position outside 0 to {max_positions - 1}"
        )
