"""The pool: every block free once or held by somebody."""

import pytest

from octavo.control.cache.block_pool import BlockPool, NoFreeBlocksError


def test_blocks_are_handed_out_once_and_come_back():
    pool = BlockPool(3)
    taken = {pool.allocate() for _ in range(3)}
    assert taken == {0, 1, 2}
    assert pool.num_free == 0
    with pytest.raises(NoFreeBlocksError):
        pool.allocate()
    pool.free(1)
    assert (pool.num_free, pool.reference_counts[1], pool.allocate()) == (1, 0, 1)


def test_the_block_freed_last_is_used_first_so_untouched_memory_stays_untouched():
    pool = BlockPool(1000)
    for _ in range(50):
        blocks = [pool.allocate() for _ in range(4)]
        for block_id in reversed(blocks):
            pool.free(block_id)
        assert blocks == [0, 1, 2, 3]


def test_a_shared_block_is_free_only_after_its_last_holder():
    pool = BlockPool(1)
    block_id = pool.allocate()
    pool.share(block_id)
    pool.free(block_id)
    assert (pool.num_free, pool.reference_counts[block_id]) == (0, 1)
    pool.free(block_id)
    assert pool.num_free == 1


def test_misuse_is_refused():
    pool = BlockPool(2)
    with pytest.raises(ValueError, match="free already"):
        pool.free(0)
    with pytest.raises(ValueError, match="cannot be shared"):
        pool.share(0)
    with pytest.raises(ValueError, match="at least one block"):
        BlockPool(0)
