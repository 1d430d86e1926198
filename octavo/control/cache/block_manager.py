"""The cache's one door: block tables by sequence, over one pool, with what is kept for later prompts.

Owns the block tables. May not touch tensors, clocks, queues or `Sequence` objects; the rules and the
numbered invariants are in README.md beside this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from octavo.control.cache.block_pool import BlockPool
from octavo.control.cache.block_table import NOT_INDEXED, BlockTable
from octavo.control.cache.invariants import check_invariants
from octavo.control.cache.prefix_hit import NO_HIT, PrefixHit
from octavo.control.cache.prefix_index import CachedRun, PrefixIndex
from octavo.control.cache.swap_space import SwapSpace, count_distinct_blocks
from octavo.step import BlockCopy


class BlockManager:
    """Gives sequences their slots (PagedAttention, arXiv:2309.06180).

    A sequence has a block table from its first `append_slots` (or from the `fork` or `adopt` that made
    it) until `release`; between `swap_out` and `swap_in` the table is in the host pool.

    Args:
        prefix_caching: keep the blocks of released tables, and find them again by their tokens.
        num_host_blocks: blocks of the host pool; 0 for none.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        prefix_caching: bool = False,
        num_host_blocks: int = 0,
    ) -> None:
        if block_size < 1:
            raise ValueError(f"a block holds at least one token, not {block_size}")
        self.block_size = block_size
        self.index = PrefixIndex(block_size) if prefix_caching else None
        self.pool = BlockPool(num_blocks, None if self.index is None else self.index.remove)
        self.swap_space = SwapSpace(num_host_blocks, block_size) if num_host_blocks else None
        self.tables: dict[int, BlockTable] = {}  # by sequence id; pins have ids below 0

    # -- how much

    @property
    def num_blocks(self) -> int:
        return self.pool.num_blocks

    @property
    def num_free_blocks(self) -> int:
        """Blocks that nobody holds, kept ones included."""
        return self.pool.num_free

    @property
    def num_kept_blocks(self) -> int:
        """Free blocks that hold a known prefix."""
        return self.pool.num_kept

    @property
    def num_used_blocks(self) -> int:
        return self.pool.num_blocks - self.pool.num_free

    @property
    def num_used_host_blocks(self) -> int:
        return (
            0 if self.swap_space is None else self.swap_space.pool.num_blocks - self.swap_space.pool.num_free
        )

    def block_ids(self, sequence_id: int) -> list[int]:
        """The sequence's block table, by reference: valid until the cache is next changed."""
        return self.tables[sequence_id].block_ids

    def has_table(self, sequence_id: int) -> bool:
        return sequence_id in self.tables

    def num_table_blocks(self, sequence_id: int) -> int:
        """How many blocks the sequence holds, in either pool; 0 for one that has no table."""
        table = self.tables.get(sequence_id)
        if table is None and self.swap_space is not None:
            table = self.swap_space.tables.get(sequence_id)
        return 0 if table is None else len(table.block_ids)

    # -- growth

    def blocks_to_append(self, sequence_id: int, num_tokens: int) -> int:
        """Free blocks that `append_slots` would take."""
        return self._find(sequence_id).blocks_to_append(num_tokens)

    def max_appendable(self, sequence_id: int) -> int:
        """The most tokens that `append_slots` could take now."""
        return self._find(sequence_id).max_appendable()

    def append_token(self, sequence_id: int) -> list[int] | None:
        """`append_slots` of one token where it asks no question: nearly every decode.

        Returns:
            The sequence's block table, or None if nothing was done and `append_slots` is to be asked.
        """
        table = self.tables.get(sequence_id)
        if table is None or not table.owns_last:
            return None
        if table.num_tokens % self.block_size == 0:
            if self.pool.num_free == 0:
                return None
            table.block_ids.append(self.pool.allocate())
        table.num_tokens += 1
        return table.block_ids

    def append_slots(self, sequence_id: int, num_tokens: int) -> list[BlockCopy]:
        """Give the sequence's next `num_tokens` positions slots that no other sequence can see.

        Returns:
            Copies to make before anything is written (none, or one where a shared block is entered).

        Raises:
            NoFreeBlocksError: there is not enough room; nothing has changed.
        """
        table = self._find(sequence_id)
        copy = table.append(num_tokens)
        self.tables[sequence_id] = table
        return [] if copy is None else [copy]

    def fork(self, parent_id: int, child_id: int, num_tokens: int) -> None:
        """Let the child share the parent's first `num_tokens` positions. Takes no block."""
        if child_id in self.tables:
            raise ValueError(f"sequence {child_id} has a block table already")
        self.tables[child_id] = self.tables[parent_id].fork(num_tokens)

    def release(self, sequence_id: int, *, is_sound: bool = True) -> None:
        """Give up the sequence's table; blocks that nobody else holds become free.

        Args:
            is_sound: False if what it wrote may be wrong: then nobody finds its own blocks again.
        """
        if self.swap_space is not None and sequence_id in self.swap_space:
            self.swap_space.release(sequence_id)
            return
        table = self.tables.pop(sequence_id)
        if not is_sound:
            self._discard_own_blocks(table)
        table.release()

    def _discard_own_blocks(self, table: BlockTable) -> None:
        for block_id in table.block_ids:
            if (
                self.pool.reference_counts[block_id] == 1
                and self.index is not None
                and block_id in self.index
            ):
                self.index.remove(block_id)
                self.pool.discard(block_id)

    # -- prefixes

    def find_prefix(
        self, token_ids: Sequence[int], keys: list[bytes], salt: str, max_tokens: int
    ) -> PrefixHit:
        """What of the first `max_tokens` of `token_ids` is in the cache.

        Args:
            keys: the sequence's chain of keys; made longer here as far as it is needed, and begun anew
                if it is of before a `forget_prefixes`.
        """
        index = self.index
        if index is None or max_tokens <= 0:
            return NO_HIT
        self._root_keys(keys, salt)
        block_ids: list[int] = []
        while (len(block_ids) + 1) * self.block_size <= max_tokens:
            index.extend_keys(keys, token_ids, len(block_ids) + 1)
            block_id = index.find(keys[len(block_ids) + 1])
            if block_id is None:
                break
            block_ids.append(block_id)
        num_tokens = len(block_ids) * self.block_size
        rest = token_ids[num_tokens : min(num_tokens + self.block_size, max_tokens)]
        part_block_id, num_part_tokens = index.find_part(keys[len(block_ids)], rest)
        counts = self.pool.reference_counts
        return PrefixHit(
            tuple(block_ids),
            num_tokens + num_part_tokens,
            part_block_id if num_part_tokens else None,
            sum(counts[block_id] == 0 for block_id in block_ids),
        )

    def key_of_block(self, token_ids: Sequence[int], keys: list[bytes], salt: str, index: int) -> bytes:
        """The key of the prefix up to the end of block `index`, all of which `token_ids` has."""
        if self.index is None:
            raise ValueError("there are no keys without prefix caching")
        self._root_keys(keys, salt)
        self.index.extend_keys(keys, token_ids, index + 1)
        return keys[index + 1]

    def adopt(self, sequence_id: int, hit: PrefixHit) -> list[BlockCopy]:
        """Begin the sequence's table with what was found. Takes a block if a part has to be copied.

        Returns:
            The copy to make before anything is written, if there is one.
        """
        if sequence_id in self.tables:
            raise ValueError(f"sequence {sequence_id} has a block table already")
        table = BlockTable(self.pool, self.block_size)
        num_full_tokens = len(hit.block_ids) * self.block_size
        table.share(hit.block_ids, num_full_tokens)
        table.num_indexed_blocks = len(hit.block_ids)
        self.tables[sequence_id] = table
        if hit.part_block_id is None:
            return []
        # Held while a block is taken for the copy, so that it is not itself given away for it.
        self.pool.share(hit.part_block_id)
        try:
            table.append(hit.num_tokens - num_full_tokens)
        finally:
            self.pool.free(hit.part_block_id)
        return [BlockCopy(hit.part_block_id, table.block_ids[-1])]

    def hold(self, holder_id: int, hit: PrefixHit) -> None:
        """Keep the whole blocks of a hit from being given away, until `release`."""
        self.adopt(holder_id, PrefixHit(hit.block_ids, len(hit.block_ids) * self.block_size))

    def blocks_to_adopt(self, hit: PrefixHit, num_tokens: int) -> int:
        """Free blocks that a sequence of `num_tokens` tokens takes if it begins with `hit`.

        One more for the source of a copy, which must not be given away before it is copied.
        """
        num_blocks = -(-num_tokens // self.block_size) - len(hit.block_ids) + hit.num_revived_blocks
        if hit.part_block_id is not None and self.pool.reference_counts[hit.part_block_id] == 0:
            num_blocks += 1
        return num_blocks

    def commit(
        self, sequence_id: int, token_ids: Sequence[int], keys: list[bytes], salt: str, num_computed: int
    ) -> None:
        """Enter the sequence's blocks that are full by now, so that others can find them.

        A block that is known already under its key is given back, and the known one held in its place.
        """
        index, table = self.index, self.tables[sequence_id]
        num_full = num_computed // self.block_size
        if index is None or num_full <= table.num_indexed_blocks:
            return
        self._root_keys(keys, salt)
        index.extend_keys(keys, token_ids, num_full)
        size = self.block_size
        for number in range(table.num_indexed_blocks, num_full):
            block_id, known = table.block_ids[number], index.find(keys[number + 1])
            if known is None:
                tokens = tuple(token_ids[number * size : (number + 1) * size])
                index.add(
                    block_id, CachedRun(keys[number], keys[number + 1], tokens, salt if number == 0 else None)
                )
                self.pool.keep(block_id)
            elif known != block_id:
                table.replace(number, known)
        table.num_indexed_blocks = num_full

    def commit_part(
        self, sequence_id: int, token_ids: Sequence[int], keys: list[bytes], salt: str, num_computed: int
    ) -> None:
        """Enter the block that is being filled, with the tokens that it has by now. After `commit`."""
        index, table = self.index, self.tables[sequence_id]
        number = num_computed // self.block_size
        if index is None or number >= len(table.block_ids) or number != table.num_indexed_blocks:
            return
        part = tuple(token_ids[number * self.block_size : num_computed])
        block_id = table.block_ids[number]
        if not part or self.pool.reference_counts[block_id] > 1:
            return
        self._root_keys(keys, salt)
        index.extend_keys(keys, token_ids, number)
        if index.find_part(keys[number], part)[1] < len(part):
            index.add(block_id, CachedRun(keys[number], None, part, salt if number == 0 else None))
            self.pool.keep(block_id)

    def _root_keys(self, keys: list[bytes], salt: str) -> None:
        if self.index is not None:
            root = self.index.root_key(salt)
            if not keys or keys[0] != root:
                keys[:] = [root]

    def forget_prefixes(self) -> int:
        """Forget all that is known of blocks' contents; what is held stays. Returns how many were known."""
        if self.index is None:
            return 0
        block_ids = list(self.index.runs)
        self.index.clear()
        for block_id in block_ids:
            self.pool.discard(block_id)
        for table in self.tables.values():
            table.num_indexed_blocks = NOT_INDEXED  # their keys are of before
        return len(block_ids)

    # -- swapping

    def num_distinct_blocks(self, sequence_ids: Iterable[int]) -> int:
        """Blocks that these sequences hold together."""
        return count_distinct_blocks(self.tables[each] for each in sequence_ids)

    def num_own_blocks(self, sequence_ids: Iterable[int]) -> int:
        """Blocks that these sequences hold and nobody else: what would be free if they left."""
        held = Counter(block_id for each in sequence_ids for block_id in self.tables[each].block_ids)
        counts = self.pool.reference_counts
        return sum(counts[block_id] == num_held for block_id, num_held in held.items())

    def can_swap_out(self, sequence_ids: Iterable[int]) -> bool:
        """Whether the host pool has room for the tables of these sequences."""
        if self.swap_space is None:
            return False
        return self.num_distinct_blocks(sequence_ids) <= self.swap_space.pool.num_free

    def swap_out(self, sequence_ids: Iterable[int]) -> list[BlockCopy]:
        """Move tables to the host pool, together: what they share stays shared. What to copy."""
        if self.swap_space is None:
            raise ValueError("there is no swap space")
        return self.swap_space.move_out({each: self.tables.pop(each) for each in sequence_ids})

    def blocks_to_swap_in(self, sequence_ids: Iterable[int]) -> int:
        """Free blocks that `swap_in` would take."""
        if self.swap_space is None:
            raise ValueError("there is no swap space")
        return count_distinct_blocks(self.swap_space.tables[each] for each in sequence_ids)

    def swap_in(self, sequence_ids: Iterable[int]) -> list[BlockCopy]:
        """Move tables back, together. What to copy."""
        if self.swap_space is None:
            raise ValueError("there is no swap space")
        tables, copies = self.swap_space.move_in(sequence_ids, self.pool)
        self.tables.update(tables)
        return copies

    # -- what it costs and saves

    def num_empty_slots(self) -> int:
        """Slots of used blocks that no sequence fills: the cache's waste. O(sequences)."""
        size, counts = self.block_size, self.pool.reference_counts
        empty_slots = 0
        partial_views: dict[int, list[int]] = {}  # shared block -> empty slots, as each table sees it
        for table in self.tables.values():
            num_empty = -table.num_tokens % size
            if num_empty:
                block_id = table.block_ids[-1]
                if counts[block_id] == 1:
                    empty_slots += num_empty
                else:
                    partial_views.setdefault(block_id, []).append(num_empty)
        for block_id, views in partial_views.items():
            # A holder that does not see the block as its partial last one has filled it.
            if len(views) == counts[block_id]:
                empty_slots += min(views)
        return empty_slots

    def num_used_slots(self) -> int:
        """Slots that hold some sequence's token; a shared one counts once."""
        return self.num_used_blocks * self.block_size - self.num_empty_slots()

    def sharing(self) -> float:
        """Blocks saved by sharing over those needed without it (the vLLM paper, section 6.3)."""
        num_without = sum(len(table.block_ids) for table in self.tables.values())
        return 1.0 - self.num_used_blocks / num_without if num_without else 0.0

    def sharing_of(self, sequence_ids: Iterable[int]) -> float:
        """The same among the tables of some sequences; 0 for those that have none."""
        tables = [self.tables[each] for each in sequence_ids if each in self.tables]
        num_without = sum(len(table.block_ids) for table in tables)
        return 1.0 - count_distinct_blocks(tables) / num_without if num_without else 0.0

    def check_invariants(self) -> None:
        """Verify the invariants of README.md. O(blocks + tables); for tests and debugging.

        Raises:
            BrokenInvariantError: one does not hold.
        """
        check_invariants(self)

    def _find(self, sequence_id: int) -> BlockTable:
        """The sequence's table, or an empty one that is not kept."""
        table = self.tables.get(sequence_id)
        return BlockTable(self.pool, self.block_size) if table is None else table
