"""Prefixes that stay in the cache for a time, whoever else wants blocks. Owns the pins; reads no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.control.cache.block_manager import BlockManager
from octavo.errors import RequestError


@dataclass(frozen=True, slots=True)
class Pin:
    """Attributes:
    pin_id: to give it up.
    num_tokens: of the prefix.
    num_blocks: that it holds.
    expires_seconds: when it ends, on the caller's clock.
    """

    pin_id: int
    num_tokens: int
    num_blocks: int
    expires_seconds: float


class PrefixPins:
    """A pin is a block table that belongs to no sequence: it holds its blocks like any other.

    Pins never keep a request from running for good: the scheduler drops them, the one that ends soonest
    first, before it lets a request that runs alone go short of blocks.
    """

    def __init__(self, cache: BlockManager) -> None:
        self._cache = cache
        self._pins: dict[int, Pin] = {}
        self._next_pin_id = 1

    def __len__(self) -> int:
        return len(self._pins)

    @property
    def pins(self) -> list[Pin]:
        return list(self._pins.values())

    def pin(self, token_ids: Sequence[int], salt: str, expires_seconds: float) -> Pin:
        """Hold the whole blocks that are cached of these tokens.

        Raises:
            RequestError: none are.
        """
        hit = self._cache.find_prefix(token_ids, [], salt, len(token_ids))
        if not hit.block_ids:
            raise RequestError(
                f"no whole block of these {len(token_ids)} tokens is in the cache; run them first",
                param="prompt",
            )
        pin = Pin(
            self._next_pin_id,
            len(hit.block_ids) * self._cache.block_size,
            len(hit.block_ids),
            expires_seconds,
        )
        self._next_pin_id += 1
        self._cache.hold(-pin.pin_id, hit)
        self._pins[pin.pin_id] = pin
        return pin

    def unpin(self, pin_id: int) -> None:
        """Raises RequestError: there is no such pin (any more)."""
        if self._pins.pop(pin_id, None) is None:
            raise RequestError(f"there is no pin {pin_id}; it may have ended", param="pin_id")
        self._cache.release(-pin_id)

    def expire(self, now_seconds: float) -> None:
        """Give up what has ended."""
        for pin in [pin for pin in self._pins.values() if pin.expires_seconds <= now_seconds]:
            self.unpin(pin.pin_id)

    def drop_soonest(self) -> bool:
        """Give up the pin that would end first. False if there is none."""
        if not self._pins:
            return False
        self.unpin(min(self._pins.values(), key=lambda pin: pin.expires_seconds).pin_id)
        return True
