"""The cache's one door: block tables by sequence, over one pool.

Owns the block tables. May not touch tensors, clocks, queues or `Sequence` objects; the rules and the
numbered invariants are in README.md beside this file.
"""

from __future__ import annotations

from collections import Counter

from octavo.control.cache.block_pool import BlockPool
from octavo.control.cache.block_table import BlockTable
from octavo.control.cache.cache_size import blocks_for_tokens
from octavo.step import BlockCopy


class BrokenInvariantError(RuntimeError):
    """The cache's bookkeeping contradicts itself: a fault in Octavo. The message starts with I1 .. I6."""


class BlockManager:
    """Gives sequences their slots (PagedAttention, arXiv:2309.06180).

    A sequence has a block table from its first `append_slots` (or from the `fork` that made it) until
    `release`.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        if block_size < 1:
            raise ValueError(f"a block holds at least one token, not {block_size}")
        self.block_size = block_size
        self._pool = BlockPool(num_blocks)
        self._tables: dict[int, BlockTable] = {}

    @property
    def num_blocks(self) -> int:
        return self._pool.num_blocks

    @property
    def num_free_blocks(self) -> int:
        return self._pool.num_free

    @property
    def num_used_blocks(self) -> int:
        return self._pool.num_blocks - self._pool.num_free

    @property
    def free_block_ids(self) -> tuple[int, ...]:
        return self._pool.free_block_ids

    def block_ids(self, sequence_id: int) -> list[int]:
        """The sequence's block table, by reference: valid until the cache is next changed."""
        return self._tables[sequence_id].block_ids

    def num_table_blocks(self, sequence_id: int) -> int:
        """How many blocks the sequence holds; 0 for one that has no table."""
        table = self._tables.get(sequence_id)
        return 0 if table is None else len(table.block_ids)

    def can_append(self, sequence_id: int, num_tokens: int) -> bool:
        """Whether `append_slots` would succeed."""
        return self._find(sequence_id).blocks_to_append(num_tokens) <= self._pool.num_free

    def max_appendable(self, sequence_id: int) -> int:
        """The most tokens that `append_slots` could take now."""
        return self._find(sequence_id).max_appendable()

    def append_slots(self, sequence_id: int, num_tokens: int) -> list[BlockCopy]:
        """Give the sequence's next `num_tokens` positions slots that no other sequence can see.

        Returns:
            Copies to make before anything is written (none, or one where a shared block is entered).

        Raises:
            NoFreeBlocksError: there is not enough room; nothing has changed.
        """
        table = self._find(sequence_id)
        copy = table.append(num_tokens)
        self._tables[sequence_id] = table
        return [] if copy is None else [copy]

    def fork(self, parent_id: int, child_id: int, num_tokens: int) -> None:
        """Let the child share the parent's first `num_tokens` positions. Takes no block."""
        if child_id in self._tables:
            raise ValueError(f"sequence {child_id} has a block table already")
        self._tables[child_id] = self._tables[parent_id].fork(num_tokens)

    def release(self, sequence_id: int) -> None:
        """Give up the sequence's table; blocks that nobody else holds become free."""
        self._tables.pop(sequence_id).release()

    def num_empty_slots(self) -> int:
        """Slots of used blocks that no sequence fills: the cache's waste. O(sequences)."""
        empty_slots = 0
        partial_views: dict[int, list[int]] = {}  # shared block -> empty slots, as each table sees it
        for table in self._tables.values():
            if table.num_empty_slots:
                block_id = table.block_ids[-1]
                if self._pool.reference_count(block_id) == 1:
                    empty_slots += table.num_empty_slots
                else:
                    partial_views.setdefault(block_id, []).append(table.num_empty_slots)
        for block_id, views in partial_views.items():
            # A holder that does not see the block as its partial last one has filled it.
            if len(views) == self._pool.reference_count(block_id):
                empty_slots += min(views)
        return empty_slots

    def num_used_slots(self) -> int:
        """Slots that hold some sequence's token; a shared one counts once."""
        return self.num_used_blocks * self.block_size - self.num_empty_slots()

    def check_invariants(self) -> None:
        """Verify I1 .. I6 of README.md. O(blocks + tables); for tests and debugging.

        Raises:
            BrokenInvariantError: one does not hold.
        """
        self._check_pool()
        self._check_tables()

    def _check_pool(self) -> None:
        free = Counter(self._pool.free_block_ids)
        held = Counter(block_id for table in self._tables.values() for block_id in table.block_ids)
        for block_id in range(self.num_blocks):
            references = self._pool.reference_count(block_id)
            _require("I1", free[block_id] == (references == 0), f"block {block_id}: {references=}, {free=}")
            _require("I2", references == held[block_id], f"block {block_id}: {references=}, held {held=}")
        _require("I1", len(free) + self.num_used_blocks == self.num_blocks, f"{free=}")

    def _check_tables(self) -> None:
        prefixes: dict[int, tuple[int, int | None]] = {}  # block -> its index and the block before it
        filled: Counter[int] = Counter()
        for sequence_id, table in self._tables.items():
            block_ids, num_tokens = table.block_ids, table.num_tokens
            where = f"sequence {sequence_id} with {num_tokens} tokens: {block_ids}"
            _require("I3", len(block_ids) == blocks_for_tokens(num_tokens, self.block_size), where)
            _require("I4", len(set(block_ids)) == len(block_ids), where)
            for index, block_id in enumerate(block_ids):
                place = (index, block_ids[index - 1] if index else None)
                _require("I5", prefixes.setdefault(block_id, place) == place, where)
                filled[block_id] = max(filled[block_id], num_tokens - index * self.block_size)
        empty = sum(max(self.block_size - num_filled, 0) for num_filled in filled.values())
        _require("I6", empty == self.num_empty_slots(), f"{empty=}, counted {self.num_empty_slots()}")

    def _find(self, sequence_id: int) -> BlockTable:
        """The sequence's table, or an empty one that is not kept."""
        table = self._tables.get(sequence_id)
        return BlockTable(self._pool, self.block_size) if table is None else table


def _require(invariant: str, holds: bool, detail: str) -> None:
    if not holds:
        raise BrokenInvariantError(f"{invariant}: {detail}")
