"""One sequence's block table: growth with its tokens, forking, and copy-on-write.

Owns the order of one sequence's blocks; the pool owns who else holds them. Moves no bytes: where KV
has to be copied it says so with a BlockCopy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from octavo.control.cache.block_pool import BlockPool, NoFreeBlocksError
from octavo.control.cache.cache_size import blocks_for_tokens
from octavo.step import BlockCopy

# Stands for "all of them and all to come": a table that the prefix index is told no more about.
NOT_INDEXED = sys.maxsize


class BlockTable:
    """Where a sequence's tokens live: position p in block `block_ids[p // block_size]`.

    Attributes:
        block_ids: the sequence's blocks, never more than its tokens need. Handed out by reference.
        num_tokens: how many positions have a slot.
        num_indexed_blocks: how many of the first blocks the prefix index has been told of; NOT_INDEXED
            where it is to be told of none.
        owns_last: whether the last block is known to be written by this table alone: then the next token
            that fits into it needs no further question.
    """

    __slots__ = (
        "_block_size",
        "_is_forked_inside",
        "_pool",
        "block_ids",
        "num_indexed_blocks",
        "num_tokens",
        "owns_last",
    )

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self._pool = pool
        self._block_size = block_size
        self.block_ids: list[int] = []
        self.num_tokens = 0
        self.num_indexed_blocks = 0
        self.owns_last = False
        # The last block holds more of the parent's tokens than this table sees. Those must survive: they
        # may be the parent's still, or in the prefix index.
        self._is_forked_inside = False

    @property
    def num_empty_slots(self) -> int:
        """Slots of the last block that no token of this sequence fills."""
        return len(self.block_ids) * self._block_size - self.num_tokens

    def blocks_to_append(self, num_tokens: int) -> int:
        """Free blocks that `append` would take: for growth, and for the copy of a shared last block."""
        empty_slots = len(self.block_ids) * self._block_size - self.num_tokens
        if num_tokens <= empty_slots:
            return 1 if self._must_copy_last_block() else 0
        growth = blocks_for_tokens(num_tokens - empty_slots, self._block_size)
        return growth + 1 if self._must_copy_last_block() else growth

    def max_appendable(self) -> int:
        """How many tokens the free blocks have room for."""
        num_free = self._pool.num_free
        if self._must_copy_last_block():
            if num_free == 0:
                return 0
            num_free -= 1
        return self.num_empty_slots + num_free * self._block_size

    def append(self, num_tokens: int) -> BlockCopy | None:
        """Give the next `num_tokens` positions slots that no other table can see.

        Returns:
            The copy to make before they are written, where the last block was shared.

        Raises:
            NoFreeBlocksError: there is not enough room; nothing has changed.
        """
        num_new_blocks = self.blocks_to_append(num_tokens)
        if num_new_blocks > self._pool.num_free:
            raise NoFreeBlocksError(f"{num_new_blocks} KV blocks are needed and {self._pool.num_free} free")
        copy = None
        if self._must_copy_last_block():
            source, target = self.block_ids[-1], self._pool.allocate()
            self._pool.free(source)
            self.block_ids[-1] = target
            self._is_forked_inside = False
            copy = BlockCopy(source_block_id=source, target_block_id=target)
            num_new_blocks -= 1
        for _ in range(num_new_blocks):
            self.block_ids.append(self._pool.allocate())
        self.num_tokens += num_tokens
        self.owns_last = True
        return copy

    def fork(self, num_tokens: int) -> BlockTable:
        """A second table that shares the blocks of the first `num_tokens` positions."""
        if not 0 <= num_tokens <= self.num_tokens:
            raise ValueError(f"cannot fork {num_tokens} tokens of a table that has {self.num_tokens}")
        child = BlockTable(self._pool, self._block_size)
        child.share(self.block_ids[: blocks_for_tokens(num_tokens, self._block_size)], num_tokens)
        child.num_indexed_blocks = self.num_indexed_blocks
        if self.num_indexed_blocks != NOT_INDEXED:
            child.num_indexed_blocks = min(self.num_indexed_blocks, num_tokens // self._block_size)
        is_same_end = num_tokens == self.num_tokens
        child._is_forked_inside = self._is_forked_inside if is_same_end else child.num_empty_slots > 0
        self.owns_last = False
        return child

    def share(self, block_ids: Iterable[int], num_tokens: int) -> None:
        """Make an empty table hold blocks that others hold or that are kept, for `num_tokens` positions."""
        self.block_ids = list(block_ids)
        self.num_tokens = num_tokens
        for block_id in self.block_ids:
            self._pool.share(block_id)

    def mirror(self, pool: BlockPool, block_ids: Iterable[int]) -> BlockTable:
        """A table of the same shape that holds `block_ids` of another pool."""
        twin = BlockTable(pool, self._block_size)
        twin.share(block_ids, self.num_tokens)
        twin._is_forked_inside = self._is_forked_inside
        # Tables that share blocks would otherwise be told to the index one by one, and for a while hold
        # different copies of one prefix before a common block (I5).
        twin.num_indexed_blocks = NOT_INDEXED
        return twin

    def replace(self, index: int, block_id: int) -> None:
        """Hold `block_id`, whose content is the same, in place of the block at `index`."""
        self._pool.share(block_id)
        self._pool.free(self.block_ids[index])
        self.block_ids[index] = block_id

    def release(self) -> None:
        """Give up all blocks, the last first: it is the first to be of no more use to anyone."""
        # A new list, not clear(): a plan may still hold the old one by reference.
        block_ids, self.block_ids = self.block_ids, []
        self.num_tokens = 0
        self.num_indexed_blocks = 0
        self.owns_last = False
        self._is_forked_inside = False
        for block_id in reversed(block_ids):
            self._pool.free(block_id)

    def _must_copy_last_block(self) -> bool:
        """Whether the next token goes into a block whose content others may need."""
        return self.num_tokens % self._block_size != 0 and (
            self._is_forked_inside or self._pool.reference_counts[self.block_ids[-1]] > 1
        )
