"""Native paged attention. Contract: signatures.PagedAttention."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.compute.kernels import reference
from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_dense, check_kv_blocks, check_rows
from octavo.compute.kernels.cpu.threads import kernel_threads
from octavo.compute.kernels.signatures import AttentionBatch

HEAD_DIM_STEP = 8  # lanes of a vector; heads of other widths take the reference


def paged_attention(
    library: NativeLibrary,
    query: Tensor,
    key_blocks: Tensor,
    value_blocks: Tensor,
    batch: AttentionBatch,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    num_tokens, num_heads, head_dim = query.shape
    if head_dim % HEAD_DIM_STEP:
        return reference.paged_attention(query, key_blocks, value_blocks, batch, scale, window, soft_cap)
    num_blocks, num_kv_heads, block_size, _ = key_blocks.shape
    num_sequences = batch.num_sequences
    check_rows("query", query, 3)
    kv_format = check_kv_blocks(key_blocks, value_blocks, num_kv_heads, head_dim)
    check_dense("query_starts", batch.query_starts, torch.int32, (num_sequences + 1,))
    check_dense("context_lengths", batch.context_lengths, torch.int32, (num_sequences,))
    check_dense("block_tables", batch.block_tables, torch.int32, (num_sequences, batch.block_tables.shape[1]))
    library.scratch.reads(query)
    out = library.scratch.empty(*query.shape)
    wrong_sequence = library.functions.octavo_paged_attention(
        library.isa,
        query.data_ptr(),
        query.stride(0),
        query.stride(1),
        key_blocks.data_ptr(),
        value_blocks.data_ptr(),
        batch.query_starts.data_ptr(),
        batch.context_lengths.data_ptr(),
        batch.block_tables.data_ptr(),
        batch.block_tables.shape[1],
        out.data_ptr(),
        num_tokens,
        num_blocks,
        num_sequences,
        num_heads,
        num_kv_heads,
        head_dim,
        block_size,
        window or 0,
        scale,
        soft_cap or 0.0,
        kv_format,
        kernel_threads(),
    )
    if wrong_sequence:
        raise IndexError(f"sequence {wrong_sequence - 1} of the batch has rows or block ids out of range")
    return out
