"""Writing and copying KV blocks in torch. Contracts: signatures.WriteKv, signatures.CopyBlocks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.compute.kernels.kv_rows import INT8_LEVELS, scale_bytes


def write_kv(key: Tensor, value: Tensor, key_blocks: Tensor, value_blocks: Tensor, slots: Tensor) -> None:
    block_size = key_blocks.shape[2]
    block_ids, offsets = slots // block_size, slots % block_size
    key_blocks[block_ids, :, offsets] = _rows(key, key_blocks.dtype)
    value_blocks[block_ids, :, offsets] = _rows(value, value_blocks.dtype)


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., head_dim] -> rows of the cache, [..., row_size(dtype, head_dim)]."""
    if dtype is not torch.int8:
        return x.to(dtype)
    largest = x.float().abs().amax(dim=-1, keepdim=True)
    is_zero = largest < 1e-35
    # One division, as the kernels do it: `127 / largest` would be a reciprocal and a product.
    inverse = torch.full_like(largest, INT8_LEVELS).div(largest).masked_fill(is_zero, 0.0)
    scales = (largest / INT8_LEVELS).masked_fill(is_zero, 0.0)
    scales = scales.masked_fill(~largest.isfinite(), torch.nan)
    quants = (x.float() * inverse).round().nan_to_num(0.0).to(torch.int8)
    return torch.cat([quants, scales.contiguous().view(torch.int8)], dim=-1)


def read_rows(rows: Tensor) -> Tensor:
    """Rows of the cache -> [..., head_dim]; int8 ones as float32."""
    if rows.dtype is not torch.int8:
        return rows
    quants, scales = rows[..., : -scale_bytes(rows.dtype)], rows[..., -scale_bytes(rows.dtype) :]
    return quants.float() * scales.contiguous().view(torch.float32)


def copy_blocks(
    kv_layers: Sequence[tuple[Tensor, Tensor]], source_ids: Sequence[int], target_ids: Sequence[int]
) -> None:
    for key_blocks, value_blocks in kv_layers:
        for source_id, target_id in zip(source_ids, target_ids, strict=True):
            key_blocks[target_id].copy_(key_blocks[source_id])
            value_blocks[target_id].copy_(value_blocks[source_id])
