"""Batch inputs: every token's place follows from its slice alone, and no plan reaches outside."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.compute.runner.batch_inputs import BatchLimits, build_batch_inputs
from octavo.step import SequenceSlice, StepPlan

CPU = torch.device("cpu")
LIMITS = BatchLimits(vocab_size=50, max_positions=64, num_blocks=1000, block_size=4)


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    slices = []
    for sequence_id in range(draw(st.integers(1, 6))):
        start_position = draw(st.integers(0, 40))
        token_ids = draw(st.lists(st.integers(0, 49), min_size=1, max_size=20))
        num_blocks = -(-(start_position + len(token_ids)) // LIMITS.block_size) + draw(st.integers(0, 2))
        block_ids = draw(st.lists(st.integers(0, 999), min_size=num_blocks, max_size=num_blocks, unique=True))
        slices.append(SequenceSlice(sequence_id, token_ids, start_position, block_ids))
    return StepPlan(step_id=1, slices=slices)


@given(plans())
def test_each_token_stands_where_its_slice_says(plan: StepPlan) -> None:
    inputs = build_batch_inputs(plan, LIMITS, CPU)
    attention = inputs.attention
    rows = [(piece, i) for piece in plan.slices for i in range(len(piece.token_ids))]
    assert inputs.token_ids.tolist() == [piece.token_ids[i] for piece, i in rows]
    assert attention.positions.tolist() == [piece.start_position + i for piece, i in rows]
    for (piece, i), slot in zip(rows, attention.slots.tolist(), strict=True):
        place, offset = divmod(piece.start_position + i, LIMITS.block_size)
        assert slot == piece.block_ids[place] * LIMITS.block_size + offset
    batch = attention.batch
    assert batch.query_starts.tolist() == inputs.row_starts
    ends = [piece.start_position + len(piece.token_ids) for piece in plan.slices]
    assert batch.context_lengths.tolist() == ends
    assert batch.max_context_length == max(ends)
    assert batch.max_query_length == max(len(piece.token_ids) for piece in plan.slices)
    for piece, end, table in zip(plan.slices, ends, batch.block_tables.tolist(), strict=True):
        num_blocks = -(-end // LIMITS.block_size)
        assert table[:num_blocks] == piece.block_ids[:num_blocks]
    for tensor in (inputs.token_ids, attention.positions, attention.slots):
        assert tensor.dtype == torch.int64
    for tensor in (batch.query_starts, batch.context_lengths, batch.block_tables):
        assert tensor.dtype == torch.int32


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (SequenceSlice(7, [50], 0, [0]), "token id 50 is not one of 50"),
        (SequenceSlice(7, [-1], 0, [0]), "token id -1 is not one of 50"),
        (SequenceSlice(7, [1], 0, [1000]), "block id 1000 is not one of 1000"),
        (SequenceSlice(7, [1], 4, [0, -3]), "block id -3 is not one of 1000"),
        (SequenceSlice(7, [1, 2], 3, [0]), "sequence 7: 1 blocks do not cover its slice, which needs 2"),
        (SequenceSlice(7, [1], 64, list(range(17))), "position 64 is not one of 64"),
        (SequenceSlice(7, [1, 2], -1, [0]), "position -1 is not one of 64"),
    ],
)
def test_plans_that_reach_outside_are_refused(piece: SequenceSlice, message: str) -> None:
    good = SequenceSlice(1, [1, 2], 0, [5])
    with pytest.raises(ValueError, match=message):
        build_batch_inputs(StepPlan(step_id=1, slices=[good, piece]), LIMITS, CPU)
