"""What could be reused, and what is pinned, as operators see it."""

from __future__ import annotations

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.listing import CachedPrefix, PrefixPin, list_cache, list_prefixes
from octavo.control.cache.pins import PrefixPins


def leave_behind(cache: BlockManager, token_ids: list[int], salt: str = "") -> None:
    """As a request over these tokens does."""
    keys: list[bytes] = []
    hit = cache.find_prefix(token_ids, keys, salt, len(token_ids) - 1)
    cache.adopt(0, hit)
    cache.append_slots(0, len(token_ids) - hit.num_tokens)
    cache.commit(0, token_ids, keys, salt, len(token_ids))
    cache.commit_part(0, token_ids, keys, salt, len(token_ids))
    cache.release(0)
    cache.check_invariants()


def test_prefixes_are_whole_and_the_longest_only() -> None:
    cache = BlockManager(12, 4, prefix_caching=True)
    trunk = list(range(1, 9))
    leave_behind(cache, [*trunk, 9, 10])
    leave_behind(cache, [*trunk, 20, 21, 22, 23])
    leave_behind(cache, [30, 31], salt="tenant")
    found = {tuple(prefix.token_ids): prefix for prefix in list_prefixes(cache)}
    assert found == {
        (*trunk, 9, 10): CachedPrefix([*trunk, 9, 10], 10, 3, False, ""),
        (*trunk, 20, 21, 22, 23): CachedPrefix([*trunk, 20, 21, 22, 23], 12, 3, False, ""),
        (30, 31): CachedPrefix([30, 31], 2, 1, False, "tenant"),
    }


def test_in_use_is_what_somebody_holds_all_of() -> None:
    cache = BlockManager(12, 4, prefix_caching=True)
    leave_behind(cache, list(range(10)))
    cache.hold(-1, cache.find_prefix(list(range(10)), [], "", 8))
    assert [prefix.is_in_use for prefix in list_prefixes(cache)] == [False], "its part is held by nobody"
    cache.release(-1)
    leave_behind(cache, list(range(50, 58)))
    cache.hold(-1, cache.find_prefix(list(range(50, 58)), [], "", 8))
    assert sorted(prefix.is_in_use for prefix in list_prefixes(cache)) == [False, True]


def test_what_lost_its_beginning_is_not_listed() -> None:
    cache = BlockManager(4, 4, prefix_caching=True)
    token_ids = list(range(12))
    leave_behind(cache, token_ids)
    first = cache.find_prefix(token_ids, [], "", 4).block_ids[0]
    cache.index.remove(first)  # type: ignore[union-attr]
    cache.pool.discard(first)
    assert list_prefixes(cache) == []
    cache.check_invariants()


def test_the_listing_counts_pins_and_what_is_kept() -> None:
    cache = BlockManager(12, 4, prefix_caching=True)
    pins = PrefixPins(cache)
    leave_behind(cache, list(range(10)))
    pin = pins.pin(list(range(10)), "", expires_seconds=105.0)
    listing = list_cache(cache, pins, now_seconds=100.0)
    assert listing.pins == [PrefixPin(pin.pin_id, 8, 2, 5.0)]
    assert listing.num_cached_blocks == 1
    assert len(listing.prefixes) == 1


def test_without_prefix_caching_there_is_nothing_to_list() -> None:
    cache = BlockManager(4, 4)
    assert list_cache(cache, PrefixPins(cache), 0.0).prefixes == []
