"""Makes paged caches with sequences in scattered blocks, for the kernels' tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.compute.kernels import AttentionBatch, reference
from octavo.compute.kernels.kv_rows import row_size
from octavo.compute.kernels.reference.kv_blocks import read_rows
from octavo.compute.kernels.signatures import PagedAttention


@dataclass(frozen=True)
class AttentionShape:
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int = 16

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5


class PagedSequences:
    """Keys, values and queries of whole sequences, laid out in a cache as a block manager might.

    Blocks are dealt in random order, and every slot that holds no token is NaN: reading it shows.
    """

    def __init__(
        self,
        shape: AttentionShape,
        context_lengths: list[int],
        *,
        seed: int = 0,
        kv_dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.shape = shape
        self.context_lengths = context_lengths
        counts = [-(-length // shape.block_size) for length in context_lengths]
        num_blocks = sum(counts) + 3
        deal = torch.randperm(num_blocks, generator=generator).tolist()
        row = row_size(kv_dtype, shape.head_dim)
        block_shape = (num_blocks, shape.num_kv_heads, shape.block_size, row)
        # -1 in every byte is NaN as a float32: an int8 row's scale.
        empty = -1 if kv_dtype is torch.int8 else float("nan")
        self.key_blocks = torch.full(block_shape, empty, dtype=kv_dtype)
        self.value_blocks = torch.full(block_shape, empty, dtype=kv_dtype)
        self.block_ids: list[list[int]] = []
        self.queries: list[Tensor] = []  # each [context_length, num_heads, head_dim]
        for length, count in zip(context_lengths, counts, strict=True):
            block_ids = [deal.pop() for _ in range(count)]
            self.block_ids.append(block_ids)
            self.queries.append(torch.randn(length, shape.num_heads, shape.head_dim, generator=generator))
            keys, values = (
                torch.randn(length, shape.num_kv_heads, shape.head_dim, generator=generator) for _ in range(2)
            )
            positions = torch.arange(length)
            ids = torch.tensor(block_ids)[positions // shape.block_size]
            slots = ids * shape.block_size + positions % shape.block_size
            reference.write_kv(keys, values, self.key_blocks, self.value_blocks, slots)

    def attend(
        self,
        kernel: PagedAttention,
        slices: list[tuple[int, int, int]],
        *,
        window: int | None = None,
        soft_cap: float | None = None,
        device: str = "cpu",
    ) -> list[Tensor]:
        """Run one batch of (sequence, first position, end position); the output rows of each slice."""
        widest = max(len(self.block_ids[s]) for s, _, _ in slices)
        # Entries past a sequence's blocks are never read: an id that does not exist would show.
        tables = torch.full((len(slices), widest), 2**31 - 1, dtype=torch.int32)
        for row, (s, _, end) in enumerate(slices):
            used = self.block_ids[s][: -(-end // self.shape.block_size)]
            tables[row, : len(used)] = torch.tensor(used, dtype=torch.int32)
        lengths = torch.tensor([end - start for _, start, end in slices])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(torch.int32)
        contexts = torch.tensor([end for _, _, end in slices], dtype=torch.int32)
        batch = AttentionBatch(
            query_starts=starts.to(device),
            context_lengths=contexts.to(device),
            block_tables=tables.to(device),
            max_query_length=int(lengths.max()),
            max_context_length=int(contexts.max()),
        )
        query = torch.cat([self.queries[s][start:end] for s, start, end in slices]).to(device)
        keys, values = self.key_blocks.to(device), self.value_blocks.to(device)
        out = kernel(query, keys, values, batch, self.shape.scale, window, soft_cap)
        return list(out.cpu().split(lengths.tolist()))


def attend_plainly(
    case: PagedSequences, sequence: int, window: int | None = None, soft_cap: float | None = None
) -> Tensor:
    """All rows of a sequence, in float64 and straight from the definition, one row and head at a time."""
    shape, length = case.shape, case.context_lengths[sequence]
    keys, values = (
        torch.stack(
            [
                read_rows(blocks[case.block_ids[sequence][p // shape.block_size], :, p % shape.block_size])
                for p in range(length)
            ]
        ).double()
        for blocks in (case.key_blocks, case.value_blocks)
    )
    group = shape.num_heads // shape.num_kv_heads
    out = torch.empty(length, shape.num_heads, shape.head_dim, dtype=torch.float64)
    for position in range(length):
        first = 0 if window is None else max(0, position - window + 1)
        for head in range(shape.num_heads):
            query = case.queries[sequence][position, head].double()
            scores = keys[first : position + 1, head // group] @ query * shape.scale
            if soft_cap is not None:
                scores = soft_cap * (scores / soft_cap).tanh()
            out[position, head] = scores.softmax(0) @ values[first : position + 1, head // group]
    return out
