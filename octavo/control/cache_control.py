"""What operators may ask of the cache and do to it: pin, list, drop, map. Owns the clock of pins."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.block_map import BlockMap, map_blocks
from octavo.control.cache.listing import CacheListing, PrefixPin, describe_pin, list_cache
from octavo.control.cache.pins import PrefixPins
from octavo.errors import RequestError
from octavo.request import Request


class CacheControl:
    """One engine's cache, between its steps.

    Args:
        requests: the live requests, as they are when asked.
    """

    def __init__(self, cache: BlockManager, pins: PrefixPins, requests: Collection[Request]) -> None:
        self._cache = cache
        self._pins = pins
        self._requests = requests
        self.last_step_id: int | None = None

    def pin(self, token_ids: Sequence[int], *, ttl_seconds: float, cache_salt: str = "") -> PrefixPin:
        """Keep what is cached of these tokens, in whole blocks, for a time.

        Raises:
            RequestError: nothing of it is cached, or the time is not above 0.
        """
        if not ttl_seconds > 0:
            raise RequestError(f"ttl_seconds must be above 0, not {ttl_seconds:g}", param="ttl_seconds")
        now = self.expire_pins()
        return describe_pin(self._pins.pin(token_ids, cache_salt, now + ttl_seconds), now)

    def unpin(self, pin_id: int) -> None:
        """Raises RequestError: there is no such pin (any more)."""
        self.expire_pins()
        self._pins.unpin(pin_id)

    def list(self) -> CacheListing:
        """What could be reused now, and what is pinned."""
        now = self.expire_pins()
        return list_cache(self._cache, self._pins, now)

    def drop(self) -> int:
        """Forget all cached prefixes and pins; what runs is not disturbed. How many blocks were known."""
        while self._pins.drop_soonest():
            pass
        return self._cache.forget_prefixes()

    def map(self) -> BlockMap:
        """Which block belongs to whom."""
        self.expire_pins()
        labels = {
            sequence.sequence_id: f"{request.request_id}/{index}"
            for request in self._requests
            for index, sequence in enumerate(request.sequences)
        }
        return map_blocks(self._cache, labels, self.last_step_id)

    def expire_pins(self) -> float:
        """Give up the pins whose time is over. The time now, on the monotonic clock."""
        now = time.monotonic()
        self._pins.expire(now)
        return now
