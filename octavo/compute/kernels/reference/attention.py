"""Paged attention in torch, one sequence after another. Contract: signatures.PagedAttention."""

import torch
from torch import Tensor

from octavo.compute.kernels.reference.kv_blocks import read_rows
from octavo.compute.kernels.signatures import AttentionBatch


def paged_attention(
    query: Tensor,
    key_blocks: Tensor,
    value_blocks: Tensor,
    batch: AttentionBatch,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    starts = batch.query_starts.tolist()
    for s, context_length in enumerate(batch.context_lengths.tolist()):
        rows = slice(starts[s], starts[s + 1])
        keys = _gather_tokens(key_blocks, batch.block_tables[s], context_length)
        values = _gather_tokens(value_blocks, batch.block_tables[s], context_length)
        out[rows] = _attend(query[rows], keys, values, scale, window, soft_cap)
    return out


def _gather_tokens(blocks: Tensor, block_table: Tensor, num_tokens: int) -> Tensor:
    """The first `num_tokens` tokens of a sequence, in order: [num_kv_heads, num_tokens, head_dim]."""
    _, num_kv_heads, block_size, _ = blocks.shape
    num_blocks = -(-num_tokens // block_size)
    gathered = read_rows(blocks[block_table[:num_blocks].long()].transpose(0, 1))
    head_dim = gathered.shape[-1]
    return gathered.reshape(num_kv_heads, num_blocks * block_size, head_dim)[:, :num_tokens]


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, soft_cap: float | None
) -> Tensor:
    """query [num_rows, num_heads, head_dim]: the last rows of the context that keys and values hold."""
    num_rows, num_heads, head_dim = query.shape
    num_kv_heads, context_length, _ = keys.shape
    # [num_kv_heads, group, num_rows, head_dim]: a KV head serves a group of neighbouring query heads.
    grouped = query.float().transpose(0, 1).reshape(num_kv_heads, -1, num_rows, head_dim)
    scores = grouped @ keys.float().unsqueeze(1).transpose(-1, -2) * scale
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    row_positions = torch.arange(context_length - num_rows, context_length, device=query.device).unsqueeze(1)
    key_positions = torch.arange(context_length, device=query.device)
    is_hidden = key_positions > row_positions
    if window is not None:
        is_hidden |= key_positions <= row_positions - window
    probabilities = scores.masked_fill(is_hidden, float("-inf")).softmax(dim=-1)
    mixed = probabilities @ values.float().unsqueeze(1)
    return mixed.reshape(num_heads, num_rows, head_dim).transpose(0, 1).to(query.dtype)
