"""The pager's numbered invariants (README.md beside this file), checked against the whole bookkeeping.

Reads everything and changes nothing. O(blocks + tables): for tests and debugging.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from octavo.control.cache.block_pool import BlockPool
from octavo.control.cache.block_table import BlockTable
from octavo.control.cache.cache_size import blocks_for_tokens

if TYPE_CHECKING:
    from octavo.control.cache.block_manager import BlockManager


class BrokenInvariantError(RuntimeError):
    """The cache's bookkeeping contradicts itself: a fault in Octavo. The message starts with I1 .. I9."""


def check_invariants(cache: BlockManager) -> None:
    """Raises BrokenInvariantError: one does not hold."""
    _check_pool(cache.pool, cache.tables)
    _check_tables(cache.tables, cache.block_size)
    _check_prefixes(cache.tables)
    _check_waste(cache)
    _check_index(cache)
    if cache.swap_space is not None:
        _check_swap_space(cache)


def _check_pool(pool: BlockPool, tables: dict[int, BlockTable]) -> None:
    empty, kept = Counter(pool.empty_block_ids), Counter(pool.kept_block_ids)
    held = Counter(block_id for table in tables.values() for block_id in table.block_ids)
    for block_id in range(pool.num_blocks):
        references, free = pool.reference_counts[block_id], empty[block_id] + kept[block_id]
        _require("I1", free == (references == 0), "block", block_id, "references", references, "free", free)
        num_held = held[block_id]
        _require("I2", references == num_held, "block", block_id, "references", references, "held", num_held)
    _require("I1", len(empty) + len(kept) == pool.num_free, "empty", empty, "kept", kept)


def _check_tables(tables: dict[int, BlockTable], block_size: int) -> None:
    for sequence_id, table in tables.items():
        where = ("sequence", sequence_id, "with", table.num_tokens, "tokens:", table.block_ids)
        num_blocks = len(table.block_ids)
        _require("I3", num_blocks == blocks_for_tokens(table.num_tokens, block_size), *where)
        _require("I4", len(set(table.block_ids)) == num_blocks, *where)


def _check_prefixes(tables: dict[int, BlockTable]) -> None:
    places: dict[int, tuple[int, int | None]] = {}  # block -> its index and the block before it
    for sequence_id, table in tables.items():
        for index, block_id in enumerate(table.block_ids):
            place = (index, table.block_ids[index - 1] if index else None)
            is_same = places.setdefault(block_id, place) == place
            _require("I5", is_same, "sequence", sequence_id, table.block_ids)


def _check_waste(cache: BlockManager) -> None:
    filled: Counter[int] = Counter()
    for table in cache.tables.values():
        for index, block_id in enumerate(table.block_ids):
            filled[block_id] = max(filled[block_id], table.num_tokens - index * cache.block_size)
    empty = sum(max(cache.block_size - num_filled, 0) for num_filled in filled.values())
    _require("I6", empty == cache.num_empty_slots(), "empty", empty, "counted", cache.num_empty_slots())


def _check_index(cache: BlockManager) -> None:
    """What is found by its tokens is there: indexed blocks are used or kept, and say what they hold."""
    kept = set(cache.pool.kept_block_ids)
    known = set() if cache.index is None else set(cache.index.runs)
    _require("I7", kept <= known, "kept but not indexed:", kept - known)
    if cache.index is None:
        return
    by_key: dict[bytes, int] = {}
    for block_id, run in cache.index.runs.items():
        is_there = cache.pool.reference_counts[block_id] > 0 or block_id in kept
        _require("I7", is_there, "block", block_id, "is indexed and empty")
        _require("I8", 1 <= len(run.token_ids) <= cache.block_size, "block", block_id, run)
        is_full = len(run.token_ids) == cache.block_size
        _require("I8", (run.key is not None) == is_full, "block", block_id, run)
        if run.key is not None:
            _require("I8", by_key.setdefault(run.key, block_id) == block_id, "block", block_id, run)
            _require("I8", cache.index.find(run.key) == block_id, "block", block_id, run)


def _check_swap_space(cache: BlockManager) -> None:
    space = cache.swap_space
    if space is None:
        return
    _require("I9", not space.tables.keys() & cache.tables.keys(), "a sequence is in both pools")
    try:
        _check_pool(space.pool, space.tables)
        _check_tables(space.tables, cache.block_size)
        _check_prefixes(space.tables)
    except BrokenInvariantError as error:
        raise BrokenInvariantError(f"I9: in the host pool, {error}") from None


def _require(invariant: str, holds: bool, *details: object) -> None:
    """The details are put into words only where they are needed: tests check after every step."""
    if not holds:
        raise BrokenInvariantError(f"{invariant}: {' '.join(map(str, details))}")
