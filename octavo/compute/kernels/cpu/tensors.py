"""Checks that stand between tensors and raw pointers: a wrong one would be read as other memory."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.compute.kernels.kv_rows import row_size


def check_rows(name: str, x: Tensor, num_dims: int) -> None:
    """x must be float32 on the CPU with `num_dims` dims, the last one contiguous.

    Raises:
        ValueError: it is not.
    """
    if x.dtype is not torch.float32 or x.device.type != "cpu" or x.dim() != num_dims or x.stride(-1) != 1:
        raise ValueError(
            f"{name} must be a float32 CPU tensor of {num_dims} dims with a contiguous last one, "
            f"not {x.dtype} on {x.device} with shape {tuple(x.shape)} and strides {x.stride()}"
        )


def check_dense(name: str, x: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """x must be a contiguous CPU tensor of exactly this format and shape.

    Raises:
        ValueError: it is not.
    """
    if x.dtype is not dtype or x.device.type != "cpu" or x.shape != shape or not x.is_contiguous():
        raise ValueError(
            f"{name} must be a contiguous {dtype} CPU tensor of shape {shape}, "
            f"not {x.dtype} on {x.device} with shape {tuple(x.shape)}"
        )


KV_FORMATS = {torch.float32: 0, torch.float16: 1, torch.int8: 2}  # KvFormat of isa.h
KV_DTYPES = tuple(KV_FORMATS)


def check_kv_blocks(key_blocks: Tensor, value_blocks: Tensor, num_kv_heads: int, head_dim: int) -> int:
    """Both must be contiguous CPU tensors of blocks, in one of the formats that the kernels read.

    Returns:
        The format's number in the C interface.

    Raises:
        ValueError: they are not.
    """
    if key_blocks.dtype not in KV_FORMATS:
        raise ValueError(f"key_blocks must be one of {tuple(KV_FORMATS)}, not {key_blocks.dtype}")
    num_blocks, _, block_size, _ = key_blocks.shape
    shape = (num_blocks, num_kv_heads, block_size, row_size(key_blocks.dtype, head_dim))
    check_dense("key_blocks", key_blocks, key_blocks.dtype, shape)
    check_dense("value_blocks", value_blocks, key_blocks.dtype, shape)
    return KV_FORMATS[key_blocks.dtype]
