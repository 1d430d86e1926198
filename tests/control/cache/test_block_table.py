"""One block table: growth, fork, copy-on-write."""

import pytest

from octavo.control.cache.block_pool import BlockPool, NoFreeBlocksError
from octavo.control.cache.block_table import BlockTable
from octavo.step import BlockCopy


def make_table(num_tokens: int, *, num_blocks: int = 8, block_size: int = 4) -> tuple[BlockTable, BlockPool]:
    pool = BlockPool(num_blocks)
    table = BlockTable(pool, block_size)
    table.append(num_tokens)
    return table, pool


def test_a_table_grows_only_when_a_token_needs_a_block():
    table, pool = make_table(1)
    sizes = []
    for _ in range(8):
        table.append(1)
        sizes.append(len(table.block_ids))
    assert sizes == [1, 1, 1, 2, 2, 2, 2, 3]
    assert pool.num_free == 5


def test_append_does_all_or_nothing():
    table, pool = make_table(5, num_blocks=2)
    before = list(table.block_ids)
    with pytest.raises(NoFreeBlocksError, match="1 KV blocks are needed and 0 free"):
        table.append(4)
    assert (table.block_ids, table.num_tokens, pool.num_free) == (before, 5, 0)
    assert table.append(3) is None


def test_max_appendable_is_exactly_what_append_takes():
    for num_tokens in range(1, 20):
        table, _ = make_table(num_tokens, num_blocks=5)
        room = table.max_appendable()
        assert room == 20 - num_tokens
        if room:
            table.append(room)
        with pytest.raises(NoFreeBlocksError):
            table.append(1)


def test_a_fork_takes_no_block_and_the_first_writer_copies():
    parent, pool = make_table(6)
    child = parent.fork(6)
    assert child.block_ids == parent.block_ids
    assert pool.num_free == 6

    copy = child.append(1)
    assert copy == BlockCopy(source_block_id=parent.block_ids[1], target_block_id=child.block_ids[1])
    assert child.block_ids[0] == parent.block_ids[0]
    assert parent.append(1) is None, "the last holder writes in place"


def test_a_fork_at_a_block_border_never_copies():
    parent, _ = make_table(8)
    child = parent.fork(4)
    assert child.block_ids == parent.block_ids[:1]
    assert child.append(1) is None
    assert parent.append(1) is None


def test_room_counts_the_copy_of_a_shared_last_block():
    parent, pool = make_table(6, num_blocks=3)
    child = parent.fork(5)
    assert child.blocks_to_append(1) == 1
    assert child.max_appendable() == 3
    pool.allocate()
    assert child.max_appendable() == 0
    with pytest.raises(NoFreeBlocksError):
        child.append(1)


def test_release_leaves_shared_blocks_to_the_other_holder():
    parent, pool = make_table(8)
    child = parent.fork(7)
    lent = parent.block_ids
    parent.release()
    assert pool.num_free == 6
    assert lent == child.block_ids, "a list that was lent by reference is not emptied"
    child.release()
    assert pool.num_free == 8


def test_a_fork_cannot_reach_beyond_its_parent():
    parent, _ = make_table(3)
    with pytest.raises(ValueError, match="cannot fork 4 tokens"):
        parent.fork(4)
