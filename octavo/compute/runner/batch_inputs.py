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
    block_tables = _block_tables(plan, context_lengths, limits.block_size)
    token_ids, positions, slots = _token_places(plan, limits.block_size)
    _check_range("token id", min(token_ids), max(token_ids), limits.vocab_size)
    first_position = min(piece.start_position for piece in plan.slices)
    _check_range("position", first_position, max(context_lengths) - 1, limits.max_positions)
    _check_range("block id", min(block_tables), max(block_tables), limits.num_blocks)
    batch = AttentionBatch(
        query_starts=_int32(array("i", row_starts)).to(device),
        context_lengths=_int32(array("i", context_lengths)).to(device),
        block_tables=_int32(block_tables).view(len(lengths), -1).to(device),
        max_query_length=max(lengths),
        max_context_length=max(context_lengths),
    )
    return BatchInputs(
        token_ids=_int64(token_ids).to(device),
        attention=AttentionInputs(
            positions=_int64(positions).to(device), slots=_int64(slots).to(device), batch=batch
        ),
        row_starts=row_starts,
    )


def _int64(numbers: array[int]) -> Tensor:
    return torch.frombuffer(numbers, dtype=torch.int64)


def _int32(numbers: array[int]) -> Tensor:
    return torch.frombuffer(numbers, dtype=torch.int32)


def _token_places(plan: StepPlan, block_size: int) -> tuple[array[int], array[int], array[int]]:
    """Token ids, positions and slots, each [num_tokens], slice after slice."""
    # Arrays of C integers and ranges: for the few numbers of a step, each tensor operation costs more.
    token_ids, positions, slots = array("q"), array("q"), array("q")
    for piece in plan.slices:
        end = piece.start_position + len(piece.token_ids)
        token_ids.extend(array("q", piece.token_ids))
        positions.extend(range(piece.start_position, end))
        position = piece.start_position
        while position < end:  # a run within one block at a time
            block, offset = divmod(position, block_size)
            run_end = min(end, position - offset + block_size)
            first_slot = piece.block_ids[block] * block_size + offset
            slots.extend(range(first_slot, first_slot + run_end - position))
            position = run_end
    return token_ids, positions, slots


def _block_tables(plan: StepPlan, context_lengths: list[int], block_size: int) -> array[int]:
    """[num_sequences, max_blocks], only as far as each context reaches; padded with zeros."""
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
    return table


def _check_range(name: str, low: int, high: int, limit: int) -> None:
    if low < 0 or high >= limit:
        raise ValueError(f"{name} {low if low < 0 else high} is not one of {limit}")
