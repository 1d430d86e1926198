"""From a plan's integers to the tensors of one forward pass: the only place where that happens."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from octavo.compute.kernels import AttentionBatch
from octavo.compute.layers.attention import AttentionInputs
from octavo.step import StepPlan


@dataclass(frozen=True, slots=True)
class BatchInputs:
    """A plan as tensors.

    Attributes:
        token_ids: [num_tokens] int64, slice after slice.
        attention: where each token stands.
        row_starts: for each slice, the row of its first token; then the number of rows.
    """

    token_ids: Tensor
    attention: AttentionInputs
    row_starts: list[int]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a plan may refer to. Kernels write where they are told: a wrong id would corrupt memory."""

    vocab_size: int
    max_positions: int
    num_blocks: int
    block_size: int


def build_batch_inputs(plan: StepPlan, limits: BatchLimits, device: torch.device) -> BatchInputs:
    """Lay the plan's slices out one after the other.

    Raises:
        ValueError: the plan names a token, position or block that does not exist.
    """
    lengths = [len(piece.token_ids) for piece in plan.slices]
    row_starts = [0, *accumulate(lengths)]
    context_lengths = [piece.start_position + len(piece.token_ids) for piece in plan.slices]
    token_ids, positions = _tokens_and_positions(plan)
    block_tables = _block_tables(plan, context_lengths, limits.block_size)
    _check_ranges(token_ids, positions, block_tables, limits)
    block_size = limits.block_size
    rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    slots = block_tables[rows, positions // block_size].long() * block_size + positions % block_size
    batch = AttentionBatch(
        query_starts=torch.tensor(row_starts, dtype=torch.int32).to(device),
        context_lengths=torch.tensor(context_lengths, dtype=torch.int32).to(device),
        block_tables=block_tables.to(device),
        max_query_length=max(lengths),
        max_context_length=max(context_lengths),
    )
    return BatchInputs(
        token_ids=token_ids.to(device),
        attention=AttentionInputs(positions=positions.to(device), slots=slots.to(device), batch=batch),
        row_starts=row_starts,
    )


def _tokens_and_positions(plan: StepPlan) -> tuple[Tensor, Tensor]:
    """Both [num_tokens] int64, slice after slice."""
    # An array of C integers is several times quicker to fill than a tensor is from lists.
    token_ids, positions = array("q"), array("q")
    for piece in plan.slices:
        token_ids.extend(array("q", piece.token_ids))
        positions.extend(range(piece.start_position, piece.start_position + len(piece.token_ids)))
    return torch.frombuffer(token_ids, dtype=torch.int64), torch.frombuffer(positions, dtype=torch.int64)


def _block_tables(plan: StepPlan, context_lengths: list[int], block_size: int) -> Tensor:
    """[num_sequences, max_blocks] int32, only as far as each context reaches; padded with zeros."""
    lengths = [-(-context_length // block_size) for context_length in context_lengths]
    max_blocks = max(lengths)
    padding = array("i", [0]) * max_blocks
    table = array("i")
    for piece, num_blocks in zip(plan.slices, lengths, strict=True):
        if len(piece.block_ids) < num_blocks:
            raise ValueError(
                f"sequence {piece.sequence_id}: {len(piece.block_ids)} blocks do not cover its slice, "
                f"which needs {num_blocks}"
            )
        table.extend(array("i", piece.block_ids[:num_blocks]))
        table.extend(padding[: max_blocks - num_blocks])
    return torch.frombuffer(table, dtype=torch.int32).view(len(lengths), max_blocks)


def _check_ranges(token_ids: Tensor, positions: Tensor, block_tables: Tensor, limits: BatchLimits) -> None:
    for name, values, limit in (
        ("token id", token_ids, limits.vocab_size),
        ("position", positions, limits.max_positions),
        ("block id", block_tables, limits.num_blocks),
    ):
        low, high = (int(bound) for bound in torch.aminmax(values))
        if low < 0 or high >= limit:
            raise ValueError(f"{name} {low if low < 0 else high} is not one of {limit}")
