"""The pool of KV blocks: which are free, and how many block tables hold each of the others.

Owns the free list and the reference counts. Knows no sequences, no tokens and no bytes.
"""

from __future__ import annotations


class NoFreeBlocksError(RuntimeError):
    """More blocks were asked for than are free; whoever asks must look first."""


class BlockPool:
    """Block ids 0 .. num_blocks - 1, each free or held by at least one block table.

    The free list is a stack: the block freed last is used next. Memory that was never touched thus
    stays untouched (and not resident) until the load really needs it.
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"a block pool needs at least one block, not {num_blocks}")
        self.num_blocks = num_blocks
        self._free_block_ids = list(range(num_blocks - 1, -1, -1))
        self._reference_counts = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free_block_ids)

    @property
    def free_block_ids(self) -> tuple[int, ...]:
        """The free blocks; the last one is handed out next."""
        return tuple(self._free_block_ids)

    def reference_count(self, block_id: int) -> int:
        """How many block tables hold this block; 0 for a free one."""
        return self._reference_counts[block_id]

    def allocate(self) -> int:
        """Take a free block, with a reference count of 1.

        Raises:
            NoFreeBlocksError: there is none.
        """
        if not self._free_block_ids:
            raise NoFreeBlocksError(f"all {self.num_blocks} KV blocks are in use")
        block_id = self._free_block_ids.pop()
        self._reference_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """Count one more holder of a used block."""
        if self._reference_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is free and cannot be shared")
        self._reference_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        """Count one holder less; the last one gives the block back."""
        if self._reference_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is free already")
        self._reference_counts[block_id] -= 1
        if self._reference_counts[block_id] == 0:
            self._free_block_ids.append(block_id)
