"""The pager's state for people: which block belongs to whom. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from octavo.control.cache.block_manager import BlockManager


@dataclass(frozen=True, slots=True)
class BlockState:
    """One block that is not empty.

    Attributes:
        state: "used" by one table, "shared" by several, "cached" for later and held by none.
        sequences: labels of the tables that hold it: "REQUEST/INDEX", or "pin/ID".
        num_tokens: slots that hold a token.
    """

    block_id: int
    state: str
    sequences: list[str]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Attributes:
    step_id: of the last step; None before the first.
    blocks: those that are not empty, by id.
    """

    step_id: int | None
    num_blocks: int
    block_size: int
    num_host_blocks_used: int
    blocks: list[BlockState]


def map_blocks(cache: BlockManager, labels: Mapping[int, str], step_id: int | None) -> BlockMap:
    """The pool as it is. `labels` names sequences by id; a table with an id below 0 is a pin."""
    holders: dict[int, list[str]] = defaultdict(list)
    filled: dict[int, int] = defaultdict(int)
    for holder_id, table in cache.tables.items():
        label = f"pin/{-holder_id}" if holder_id < 0 else labels.get(holder_id, str(holder_id))
        for index, block_id in enumerate(table.block_ids):
            holders[block_id].append(label)
            num_tokens = min(cache.block_size, table.num_tokens - index * cache.block_size)
            filled[block_id] = max(filled[block_id], num_tokens)
    for block_id in cache.pool.kept_block_ids:
        holders[block_id] = []
        filled[block_id] = len(cache.index.runs[block_id].token_ids) if cache.index is not None else 0
    blocks = [
        BlockState(block_id, _state(len(holders[block_id])), holders[block_id], filled[block_id])
        for block_id in sorted(holders)
    ]
    return BlockMap(step_id, cache.num_blocks, cache.block_size, cache.num_used_host_blocks, blocks)


def _state(num_holders: int) -> str:
    return "cached" if num_holders == 0 else "used" if num_holders == 1 else "shared"
