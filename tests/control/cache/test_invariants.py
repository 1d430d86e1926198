"""Damage to the index and to the host pool is named; test_block_manager.py does the same to tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.invariants import BrokenInvariantError, check_invariants

TOKENS = list(range(11))


def make_cache() -> BlockManager:
    """Two full blocks and a part are kept, sequence 1 runs on the first, 2 is in the host pool."""
    cache = BlockManager(12, 4, prefix_caching=True, num_host_blocks=4)
    keys: list[bytes] = []
    cache.append_slots(0, 11)
    cache.commit(0, TOKENS, keys, "", 11)
    cache.commit_part(0, TOKENS, keys, "", 11)
    cache.release(0)
    cache.adopt(1, cache.find_prefix(TOKENS, [], "", 4))
    cache.append_slots(2, 6)
    cache.swap_out([2])
    return cache


def forget_a_kept_block(cache: BlockManager) -> None:
    assert cache.index is not None
    cache.index.remove(cache.pool.kept_block_ids[0])


def empty_an_indexed_block(cache: BlockManager) -> None:
    cache.pool.discard(cache.pool.kept_block_ids[0])


def take_a_full_blocks_key(cache: BlockManager) -> None:
    assert cache.index is not None
    block_id = cache.block_ids(1)[0]
    cache.index._runs[block_id] = replace(cache.index.runs[block_id], key=None)


def find_another_block(cache: BlockManager) -> None:
    assert cache.index is not None
    run = cache.index.runs[cache.block_ids(1)[0]]
    assert run.key is not None
    cache.index._full[run.key] = 99


def hold_nothing(cache: BlockManager) -> None:
    assert cache.index is not None
    block_id = cache.block_ids(1)[0]
    cache.index._runs[block_id] = replace(cache.index.runs[block_id], token_ids=(), key=None)


def be_in_both_pools(cache: BlockManager) -> None:
    assert cache.swap_space is not None
    cache.swap_space.tables[1] = cache.swap_space.tables.pop(2)


def lose_a_host_reference(cache: BlockManager) -> None:
    assert cache.swap_space is not None
    cache.swap_space.pool.reference_counts[cache.swap_space.tables[2].block_ids[0]] = 2


@pytest.mark.parametrize(
    ("number", "damage"),
    [
        ("I7", forget_a_kept_block),
        ("I7", empty_an_indexed_block),
        ("I8", take_a_full_blocks_key),
        ("I8", find_another_block),
        ("I8", hold_nothing),
        ("I9", be_in_both_pools),
        ("I9: in the host pool, I2", lose_a_host_reference),
    ],
)
def test_each_damage_is_named(number: str, damage: Callable[[BlockManager], None]) -> None:
    cache = make_cache()
    check_invariants(cache)
    damage(cache)
    with pytest.raises(BrokenInvariantError, match=rf"^{number}: "):
        check_invariants(cache)


def test_the_message_says_where() -> None:
    cache = make_cache()
    block_id = cache.block_ids(1)[0]
    cache.pool.reference_counts[block_id] = 5
    with pytest.raises(BrokenInvariantError, match=f"^I2: block {block_id} references 5 held 1$"):
        check_invariants(cache)
