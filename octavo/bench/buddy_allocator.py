"""A buddy allocator of contiguous runs of slots: what serving systems had before paging.

Owns addresses and free lists; there are real holes, so external fragmentation is found and not estimated.
"""

from __future__ import annotations


def power_of_two_above(number: int) -> int:
    """The lowest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


class BuddyAllocator:
    """Runs of power-of-two lengths, split and merged in halves (Knowlton, 1965).

    Args:
        num_slots: length of the memory; one that is no power of two is cut into powers, largest first.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"there must be at least one slot, not {num_slots}")
        self.num_slots = num_slots
        self.num_free_slots = num_slots
        self._free: dict[int, set[int]] = {}  # length -> offsets
        self._taken: dict[int, int] = {}  # offset -> length
        offset = 0
        while offset < num_slots:
            length = 1 << ((num_slots - offset).bit_length() - 1)
            self._free.setdefault(length, set()).add(offset)
            offset += length

    def allocate(self, num_slots: int) -> int | None:
        """Take the smallest run that has room, the lowest of equals; its offset, or None if none has."""
        wanted = power_of_two_above(num_slots)
        lengths = [length for length, offsets in self._free.items() if length >= wanted and offsets]
        if not lengths:
            return None
        length = min(lengths)
        offset = min(self._free[length])
        self._free[length].remove(offset)
        while length > wanted:
            length //= 2
            self._free.setdefault(length, set()).add(offset + length)
        self._taken[offset] = length
        self.num_free_slots -= length
        return offset

    def taken_at(self, offset: int) -> int:
        """How long the run is that was taken at `offset`: the wanted length, rounded up."""
        return self._taken[offset]

    def free(self, offset: int) -> None:
        """Give a run back; free neighbours that were one run become one again."""
        length = self._taken.pop(offset)
        self.num_free_slots += length
        while (offset ^ length) in (same := self._free.setdefault(length, set())):
            same.remove(offset ^ length)
            offset &= ~length
            length *= 2
        same.add(offset)
