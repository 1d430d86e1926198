"""The block tables of sequences whose KV is in host memory, over a pool of host blocks.

Owns those tables and that pool. Says what to copy; moves no bytes and chooses nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from octavo.control.cache.block_pool import BlockPool
from octavo.control.cache.block_table import BlockTable
from octavo.step import BlockCopy, CopyKind


class SwapSpace:
    """Tables go out and come in together, so that blocks which they share stay shared."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._block_size = block_size
        self.pool = BlockPool(num_blocks)
        self.tables: dict[int, BlockTable] = {}  # by sequence id

    def __contains__(self, sequence_id: int) -> bool:
        return sequence_id in self.tables

    def move_out(self, tables: Mapping[int, BlockTable]) -> list[BlockCopy]:
        """Give each device table a host table of the same shape, and release it.

        The pool must have room for the tables' distinct blocks.
        """
        host_tables, pairs = _mirror(tables, self.pool, self._block_size)
        self.tables.update(host_tables)
        return [BlockCopy(device, host, CopyKind.SWAP_OUT) for device, host in pairs.items()]

    def move_in(
        self, sequence_ids: Iterable[int], device_pool: BlockPool
    ) -> tuple[dict[int, BlockTable], list[BlockCopy]]:
        """The way back: device tables by sequence id, and what to copy into their blocks."""
        tables = {sequence_id: self.tables.pop(sequence_id) for sequence_id in sequence_ids}
        device_tables, pairs = _mirror(tables, device_pool, self._block_size)
        return device_tables, [BlockCopy(host, device, CopyKind.SWAP_IN) for host, device in pairs.items()]

    def release(self, sequence_id: int) -> None:
        """Forget a sequence that will not come back."""
        self.tables.pop(sequence_id).release()


def count_distinct_blocks(tables: Iterable[BlockTable]) -> int:
    """How many blocks some tables hold together."""
    return len({block_id for table in tables for block_id in table.block_ids})


def _mirror(
    tables: Mapping[int, BlockTable], pool: BlockPool, block_size: int
) -> tuple[dict[int, BlockTable], dict[int, int]]:
    """Tables of the same shape in another pool, and old block id -> new block id. Releases the old ones.

    Blocks are allocated one by one and shared from the second holder on.
    """
    pairs: dict[int, int] = {}
    mirrored = {}
    for sequence_id, table in tables.items():
        new_blocks = [block_id for block_id in table.block_ids if block_id not in pairs]
        for block_id in new_blocks:
            pairs[block_id] = pool.allocate()
        mirrored[sequence_id] = table.mirror(pool, [pairs[block_id] for block_id in table.block_ids])
    # The allocation itself counted as one holder of each.
    for block_id in pairs.values():
        pool.free(block_id)
    for table in tables.values():
        table.release()
    return mirrored, pairs
