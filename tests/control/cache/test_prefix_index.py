"""Keys and entries: what is found by its tokens, and what is not."""

from __future__ import annotations

from octavo.control.cache.prefix_index import (
    MAX_COMPARED_BLOCKS,
    MAX_REMEMBERED_SALTS,
    CachedRun,
    PrefixIndex,
)

SIZE = 4


def keys_of(index: PrefixIndex, token_ids: list[int], salt: str = "") -> list[bytes]:
    keys = [index.root_key(salt)]
    index.extend_keys(keys, token_ids, len(token_ids) // SIZE)
    return keys


def add_full(index: PrefixIndex, block_id: int, token_ids: list[int]) -> bytes:
    """Enter the last block of these tokens."""
    keys = keys_of(index, token_ids)
    index.add(block_id, CachedRun(keys[-2], keys[-1], tuple(token_ids[-SIZE:])))
    return keys[-1]


def test_a_key_is_of_all_tokens_before_it_and_of_the_salt() -> None:
    index = PrefixIndex(SIZE)
    first, second = [1, 2, 3, 4], [5, 6, 7, 8]
    keys = keys_of(index, first + second)
    assert keys == keys_of(index, first + second)
    assert keys[1] == keys_of(index, first)[1]
    others = {
        keys_of(index, second + second)[2],
        keys_of(index, [1, 2, 3, 5, *second])[2],
        keys_of(index, first + second, salt="tenant")[2],
        keys_of(PrefixIndex(SIZE), first + second)[2],  # another process' secret
    }
    assert len(others) == 4
    assert keys[2] not in others


def test_keys_are_made_longer_and_never_again() -> None:
    index = PrefixIndex(SIZE)
    token_ids = list(range(12))
    keys = [index.root_key("")]
    index.extend_keys(keys, token_ids, 1)
    before = list(keys)
    index.extend_keys(keys, token_ids, 3)
    assert keys[:2] == before
    assert keys == keys_of(index, token_ids)


def test_large_token_ids_do_not_run_into_each_other() -> None:
    index = PrefixIndex(SIZE)
    assert keys_of(index, [256, 0, 1, 2])[1] != keys_of(index, [0, 1, 1, 2])[1]
    assert keys_of(index, [2**31, 0, 0, 0])[1] != keys_of(index, [0, 0, 0, 0])[1]


def test_a_full_block_is_found_by_its_key_until_it_is_removed() -> None:
    index = PrefixIndex(SIZE)
    key = add_full(index, 7, [1, 2, 3, 4])
    assert (index.find(key), len(index), 7 in index) == (7, 1, True)
    index.remove(7)
    assert (index.find(key), len(index), 7 in index) == (None, 0, False)
    assert index.find_part(index.root_key(""), [1, 2]) == (0, 0)


def test_a_part_is_the_longest_common_beginning_after_the_same_prefix() -> None:
    index = PrefixIndex(SIZE)
    root = index.root_key("")
    add_full(index, 1, [1, 2, 3, 4])
    index.add(2, CachedRun(root, None, (1, 2, 9)))
    assert index.find_part(root, [1, 2, 3, 8]) == (1, 3)
    assert index.find_part(root, [1, 2, 9, 8]) == (2, 3)
    assert index.find_part(root, [1]) == (2, 1), "of equals the newest"
    assert index.find_part(root, [2, 3]) == (0, 0)
    assert index.find_part(root, []) == (0, 0)
    assert index.find_part(index.root_key("tenant"), [1, 2, 3]) == (0, 0)


def test_entering_a_block_again_replaces_what_it_was() -> None:
    index = PrefixIndex(SIZE)
    root = index.root_key("")
    index.add(5, CachedRun(root, None, (1, 2)))
    key = add_full(index, 5, [8, 7, 6, 5])
    assert index.find(key) == 5
    assert index.find_part(root, [1, 2]) == (0, 0)
    assert len(index) == 1


def test_only_the_newest_of_very_many_are_compared() -> None:
    index = PrefixIndex(SIZE)
    root = index.root_key("")
    index.add(0, CachedRun(root, None, (1, 2, 3)))
    for block_id in range(1, MAX_COMPARED_BLOCKS + 1):
        index.add(block_id, CachedRun(root, None, (1, 100 + block_id)))
    assert index.find_part(root, [1, 2, 3]) == (MAX_COMPARED_BLOCKS, 1)


def test_what_was_known_before_a_clear_is_never_met_again() -> None:
    index = PrefixIndex(SIZE)
    token_ids = [1, 2, 3, 4]
    key = add_full(index, 7, token_ids)
    index.clear()
    assert len(index) == 0
    assert keys_of(index, token_ids)[1] != key
    assert index.find(key) is None


def test_very_many_salts_are_forgotten_without_harm() -> None:
    """A root that was dropped is made again as it was: blocks under it are found as before."""
    index = PrefixIndex(SIZE)
    root = index.root_key("first")
    for number in range(MAX_REMEMBERED_SALTS):
        index.root_key(str(number))
    assert len(index._roots) <= MAX_REMEMBERED_SALTS
    assert index.root_key("first") == root
