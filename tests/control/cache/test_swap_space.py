"""Tables that go to the host pool and come back."""

from __future__ import annotations

import pytest

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.block_pool import NoFreeBlocksError
from octavo.step import BlockCopy, CopyKind


def make_cache(num_blocks: int = 12, num_host_blocks: int = 6) -> BlockManager:
    """Sequence 0 has 10 tokens in blocks of 4, sequence 1 is a fork of it that has written on."""
    cache = BlockManager(num_blocks, 4, num_host_blocks=num_host_blocks)
    cache.append_slots(0, 10)
    cache.fork(0, 1, 10)
    cache.append_slots(1, 1)
    cache.check_invariants()
    return cache


def test_a_group_goes_out_together_and_each_block_once() -> None:
    cache = make_cache()
    first, second = list(cache.block_ids(0)), list(cache.block_ids(1))
    copies = cache.swap_out([0, 1])
    assert [copy.kind for copy in copies] == [CopyKind.SWAP_OUT] * 4
    assert {copy.source_block_id for copy in copies} == {*first, *second}
    assert len({copy.target_block_id for copy in copies}) == 4
    assert (cache.num_used_blocks, cache.num_used_host_blocks) == (0, 4)
    assert not cache.has_table(0)
    assert cache.num_table_blocks(0) == cache.num_table_blocks(1) == 3
    cache.check_invariants()


def test_what_was_shared_is_shared_when_it_comes_back() -> None:
    cache = make_cache()
    out = {copy.source_block_id: copy.target_block_id for copy in cache.swap_out([0, 1])}
    cache.append_slots(9, 17)  # the old blocks are somebody else's meanwhile
    assert cache.blocks_to_swap_in([0, 1]) == 4
    copies = cache.swap_in([0, 1])
    assert {copy.source_block_id for copy in copies} == set(out.values())
    assert all(copy.kind is CopyKind.SWAP_IN for copy in copies)
    assert cache.block_ids(0)[:2] == cache.block_ids(1)[:2]
    assert cache.block_ids(0)[2] != cache.block_ids(1)[2]
    assert cache.num_used_host_blocks == 0
    cache.check_invariants()
    assert cache.append_slots(1, 1) == [], "the last block is still its own"
    # The first one's, too: nobody else holds it.
    assert cache.append_slots(0, 1) == []
    cache.check_invariants()


def test_a_fork_that_has_not_written_still_copies_on_write_after_a_swap() -> None:
    cache = BlockManager(8, 4, num_host_blocks=4)
    cache.append_slots(0, 6)
    cache.fork(0, 1, 5)
    cache.swap_out([0, 1])
    cache.swap_in([0, 1])
    shared = cache.block_ids(1)[1]
    assert cache.append_slots(1, 1) == [BlockCopy(shared, cache.block_ids(1)[1])]
    assert cache.block_ids(0)[1] == shared
    cache.check_invariants()


def test_room_is_counted_before_anything_moves() -> None:
    cache = make_cache(num_host_blocks=3)
    assert not cache.can_swap_out([0, 1])
    assert cache.can_swap_out([0])
    cache = BlockManager(12, 4)
    cache.append_slots(0, 1)
    assert not cache.can_swap_out([0]), "there is no host pool"
    with pytest.raises(ValueError, match="no swap space"):
        cache.swap_out([0])
    with pytest.raises(ValueError, match="no swap space"):
        cache.blocks_to_swap_in([0])


def test_one_who_does_not_come_back_gives_its_host_blocks_up() -> None:
    cache = make_cache()
    cache.swap_out([0, 1])
    cache.release(0)
    assert cache.num_used_host_blocks == 3, "what the other one shares stays"
    cache.release(1)
    assert cache.num_used_host_blocks == 0
    cache.check_invariants()


def test_a_pool_that_is_too_small_is_an_error() -> None:
    cache = make_cache(num_host_blocks=3)
    with pytest.raises(NoFreeBlocksError):
        cache.swap_out([0, 1])
