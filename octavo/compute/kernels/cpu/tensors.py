"""Checks that stand between tensors and raw pointers: a wrong one would be read as other memory."""

from __future__ import annotations

import torch
from torch import Tensor


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


KV_DTYPES = (torch.float32, torch.float16)


def check_kv_blocks(key_blocks: Tensor, value_blocks: Tensor, shape: tuple[int, ...]) -> None:
    """Both must be contiguous CPU tensors of this shape, in one of the formats that the kernels read.

    Raises:
        ValueError: they are not.
    """
    if key_blocks.dtype not in KV_DTYPES:
        raise ValueError(f"key_blocks must be one of {KV_DTYPES}, not {key_blocks.dtype}")
    check_dense("key_blocks", key_blocks, key_blocks.dtype, shape)
    check_dense("value_blocks", value_blocks, key_blocks.dtype, shape)
