"""The pager's state as people see it."""

from __future__ import annotations

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.block_map import BlockState, map_blocks


def test_each_block_is_used_shared_cached_or_not_there() -> None:
    cache = BlockManager(10, 4, prefix_caching=True, num_host_blocks=3)
    token_ids = list(range(7))
    cache.append_slots(0, 7)
    keys: list[bytes] = []
    cache.commit(0, token_ids, keys, "", 7)
    cache.commit_part(0, token_ids, keys, "", 7)
    cached = list(cache.block_ids(0))
    cache.release(0)
    cache.append_slots(1, 5)
    cache.fork(1, 2, 5)
    cache.append_slots(2, 1)  # copies the second block
    cache.append_slots(3, 2)
    cache.swap_out([3])
    first, own = cache.block_ids(1)
    copied = cache.block_ids(2)[1]

    block_map = map_blocks(cache, {1: "a/0", 2: "a/1"}, step_id=12)
    assert (block_map.step_id, block_map.num_blocks, block_map.block_size) == (12, 10, 4)
    assert block_map.num_host_blocks_used == 1
    assert block_map.blocks == sorted(
        [
            BlockState(cached[0], "cached", [], 4),
            BlockState(cached[1], "cached", [], 3),
            BlockState(first, "shared", ["a/0", "a/1"], 4),
            BlockState(own, "used", ["a/0"], 1),
            BlockState(copied, "used", ["a/1"], 2),
        ],
        key=lambda block: block.block_id,
    )


def test_a_shared_block_is_as_full_as_the_one_who_sees_most_of_it() -> None:
    cache = BlockManager(4, 4)
    cache.append_slots(0, 7)
    cache.fork(0, 1, 5)
    states = {block.block_id: block for block in map_blocks(cache, {}, None).blocks}
    assert states[cache.block_ids(0)[1]] == BlockState(cache.block_ids(0)[1], "shared", ["0", "1"], 3)


def test_pins_are_named_as_such() -> None:
    cache = BlockManager(4, 4, prefix_caching=True)
    cache.append_slots(0, 4)
    cache.commit(0, [1, 2, 3, 4], [], "", 4)
    hit = cache.find_prefix([1, 2, 3, 4], [], "", 4)
    cache.hold(-3, hit)
    assert map_blocks(cache, {0: "r/0"}, None).blocks == [
        BlockState(cache.block_ids(0)[0], "shared", ["r/0", "pin/3"], 4)
    ]


def test_an_empty_pool_has_no_blocks_to_show() -> None:
    assert map_blocks(BlockManager(4, 4), {}, None).blocks == []
