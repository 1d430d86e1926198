"""A pool of KV blocks: which are free, how many block tables hold each of the others, what is kept for later.

Owns the free lists and the reference counts. Knows no sequences, no tokens and no bytes.
"""

from __future__ import annotations

from collections.abc import Callable


class NoFreeBlocksError(RuntimeError):
    """More blocks were asked for than are free; whoever asks must look first."""


class BlockPool:
    """Block ids 0 .. num_blocks - 1, each free or held by at least one block table.

    A free block is empty or *kept*: nobody holds it, but its content may be of use again. Empty ones are
    a stack: the block freed last is used next, so that memory which was never touched stays untouched
    (and not resident) until the load really needs it. Kept ones are given away when no empty one is
    left, the least recently freed first.

    Args:
        on_evict: told the block id when a kept block is about to be given away.
    """

    def __init__(self, num_blocks: int, on_evict: Callable[[int], None] | None = None) -> None:
        if num_blocks < 1:
            raise ValueError(f"a block pool needs at least one block, not {num_blocks}")
        self.num_blocks = num_blocks
        self._on_evict = on_evict
        self._empty_block_ids = list(range(num_blocks - 1, -1, -1))
        self._kept_block_ids: dict[int, None] = {}  # in order of freeing
        self._is_worth_keeping = bytearray(num_blocks)
        self.reference_counts = [0] * num_blocks  # read-only outside; a list, as it is read for each token

    @property
    def num_free(self) -> int:
        return len(self._empty_block_ids) + len(self._kept_block_ids)

    @property
    def num_kept(self) -> int:
        """Free blocks whose content may be of use again."""
        return len(self._kept_block_ids)

    @property
    def empty_block_ids(self) -> tuple[int, ...]:
        """Free blocks without content; the last one is handed out next."""
        return tuple(self._empty_block_ids)

    @property
    def kept_block_ids(self) -> tuple[int, ...]:
        """Free blocks with content; the first one is given away first."""
        return tuple(self._kept_block_ids)

    def allocate(self) -> int:
        """Take a free block, with a reference count of 1.

        Raises:
            NoFreeBlocksError: there is none.
        """
        if self._empty_block_ids:
            block_id = self._empty_block_ids.pop()
        elif self._kept_block_ids:
            block_id = next(iter(self._kept_block_ids))
            del self._kept_block_ids[block_id]
            self._is_worth_keeping[block_id] = 0
            if self._on_evict is not None:
                self._on_evict(block_id)
        else:
            raise NoFreeBlocksError(f"all {self.num_blocks} KV blocks are in use")
        self.reference_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """Count one more holder of a used or kept block."""
        if self.reference_counts[block_id] == 0:
            if block_id not in self._kept_block_ids:
                raise ValueError(f"block {block_id} is free and cannot be shared")
            del self._kept_block_ids[block_id]
        self.reference_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        """Count one holder less; the last one gives the block back."""
        if self.reference_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is free already")
        self.reference_counts[block_id] -= 1
        if self.reference_counts[block_id] == 0:
            if self._is_worth_keeping[block_id]:
                self._kept_block_ids[block_id] = None
            else:
                self._empty_block_ids.append(block_id)

    def keep(self, block_id: int) -> None:
        """From now on this used block is kept when it becomes free."""
        self._is_worth_keeping[block_id] = 1

    def discard(self, block_id: int) -> None:
        """Its content is of no more use, whether it is used or free."""
        self._is_worth_keeping[block_id] = 0
        if block_id in self._kept_block_ids:
            del self._kept_block_ids[block_id]
            self._empty_block_ids.append(block_id)
