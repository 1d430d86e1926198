"""Native writing and copying of KV blocks. Contracts: signatures.WriteKv, signatures.CopyBlocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_dense, check_kv_blocks, check_rows
from octavo.compute.kernels.cpu.threads import kernel_threads


def write_kv(
    library: NativeLibrary,
    key: Tensor,
    value: Tensor,
    key_blocks: Tensor,
    value_blocks: Tensor,
    slots: Tensor,
) -> None:
    num_tokens, num_kv_heads, head_dim = key.shape
    num_blocks, _, block_size, _ = key_blocks.shape
    check_rows("key", key, 3)
    check_rows("value", value, 3)
    kv_format = check_kv_blocks(key_blocks, value_blocks, num_kv_heads, head_dim)
    check_dense("slots", slots, torch.int64, (num_tokens,))
    if value.shape != key.shape:
        raise ValueError(f"value has shape {tuple(value.shape)}, key {tuple(key.shape)}")
    library.scratch.reads(key, value)
    wrong_token = library.functions.octavo_write_kv(
        library.isa,
        key.data_ptr(),
        value.data_ptr(),
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        key_blocks.data_ptr(),
        value_blocks.data_ptr(),
        kv_format,
        slots.data_ptr(),
        num_tokens,
        num_blocks,
        num_kv_heads,
        block_size,
        head_dim,
        kernel_threads(),
    )
    if wrong_token:
        raise IndexError(f"token {wrong_token - 1} of the step has a slot out of range")


def copy_blocks(
    library: NativeLibrary,
    kv_layers: Sequence[tuple[Tensor, Tensor]],
    source_ids: Sequence[int],
    target_ids: Sequence[int],
) -> None:
    if len(source_ids) != len(target_ids):
        raise ValueError(f"{len(source_ids)} source blocks for {len(target_ids)} target blocks")
    if not source_ids:
        return
    sources = torch.tensor(source_ids, dtype=torch.int64)
    targets = torch.tensor(target_ids, dtype=torch.int64)
    lowest, highest = min(*source_ids, *target_ids), max(*source_ids, *target_ids)
    for key_blocks, value_blocks in kv_layers:
        check_dense("key_blocks", key_blocks, key_blocks.dtype, key_blocks.shape)
        check_dense("value_blocks", value_blocks, key_blocks.dtype, key_blocks.shape)
        if lowest < 0 or highest >= key_blocks.shape[0]:
            raise IndexError(f"a block copy names a block outside 0 to {key_blocks.shape[0] - 1}")
        library.functions.octavo_copy_blocks(
            key_blocks.data_ptr(),
            value_blocks.data_ptr(),
            sources.data_ptr(),
            targets.data_ptr(),
            len(source_ids),
            key_blocks[0].nbytes,
        )
