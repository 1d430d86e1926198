"""What the cache could give a next prompt, and what is pinned, as operators see it. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.pins import Pin, PrefixPins


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """A longest prefix that a prompt could reuse: it ends in a block that no known one follows.

    Attributes:
        token_ids: all of it.
        num_blocks: blocks that hold it, the last one perhaps in part.
        is_in_use: whether sequences or pins hold all of it.
        cache_salt: the salt that a prompt needs to find it.
    """

    token_ids: list[int]
    num_tokens: int
    num_blocks: int
    is_in_use: bool
    cache_salt: str


@dataclass(frozen=True, slots=True)
class PrefixPin:
    """A pin with the time that it still has."""

    pin_id: int
    num_tokens: int
    num_blocks: int
    expires_in_seconds: float


@dataclass(frozen=True, slots=True)
class CacheListing:
    """Attributes:
    num_cached_blocks: blocks that hold a known prefix and that nobody uses now.
    """

    num_cached_blocks: int
    pins: list[PrefixPin]
    prefixes: list[CachedPrefix]


def list_cache(cache: BlockManager, pins: PrefixPins, now_seconds: float) -> CacheListing:
    """The cache at this moment."""
    return CacheListing(
        cache.num_kept_blocks, [describe_pin(pin, now_seconds) for pin in pins.pins], list_prefixes(cache)
    )


def describe_pin(pin: Pin, now_seconds: float) -> PrefixPin:
    return PrefixPin(pin.pin_id, pin.num_tokens, pin.num_blocks, pin.expires_seconds - now_seconds)


def list_prefixes(cache: BlockManager) -> list[CachedPrefix]:
    """The longest prefixes that can be found again; what has been cut off from its beginning is left out."""
    if cache.index is None:
        return []
    runs = cache.index.runs
    inner = {run.parent_key for run in runs.values()}
    prefixes = []
    for block_id, run in runs.items():
        if run.key is not None and run.key in inner:
            continue
        chain = [block_id]
        while (before := cache.index.find(runs[chain[-1]].parent_key)) is not None:
            chain.append(before)
        salt = runs[chain[-1]].salt
        if salt is None:
            continue
        chain.reverse()
        token_ids = [token_id for each in chain for token_id in runs[each].token_ids]
        is_in_use = all(cache.pool.reference_counts[each] > 0 for each in chain)
        prefixes.append(CachedPrefix(token_ids, len(token_ids), len(chain), is_in_use, salt))
    return prefixes
