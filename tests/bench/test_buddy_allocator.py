"""The buddy allocator: runs never overlap, and what is given back can be had again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.buddy_allocator import BuddyAllocator, power_of_two_above


@pytest.mark.parametrize(("number", "power"), [(1, 1), (2, 2), (3, 4), (25, 32), (32, 32), (33, 64)])
def test_powers_of_two(number, power):
    assert power_of_two_above(number) == power


def test_halves_are_split_and_merged():
    memory = BuddyAllocator(16)
    first, second = memory.allocate(5), memory.allocate(3)
    assert (first, memory.taken_at(0)) == (0, 8)
    assert (second, memory.taken_at(8)) == (8, 4)
    assert memory.allocate(8) is None, "8 are free with the rounding, but in two holes"
    memory.free(second)
    assert memory.allocate(8) == 8
    memory.free(first)
    memory.free(8)
    assert memory.allocate(16) == 0


def test_a_size_that_is_no_power_of_two_is_used_to_the_end():
    memory = BuddyAllocator(15_700)
    offsets = [memory.allocate(2048) for _ in range(8)]
    assert offsets[-1] is None
    assert sorted(offsets[:-1]) == list(range(0, 14_336, 2048))
    assert memory.num_free_slots == 15_700 - 7 * 2048


@given(st.integers(1, 300), st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=60))
def test_runs_never_overlap_and_all_comes_back(num_slots, operations):
    memory = BuddyAllocator(num_slots)
    taken: dict[int, int] = {}
    for is_allocation, number in operations:
        if is_allocation:
            offset = memory.allocate(number)
            if offset is not None:
                taken[offset] = power_of_two_above(number)
                assert memory.taken_at(offset) == taken[offset]
        elif taken:
            offset = list(taken)[number % len(taken)]
            del taken[offset]
            memory.free(offset)
        places = [place for offset, length in taken.items() for place in range(offset, offset + length)]
        assert len(places) == len(set(places))
        assert not places or max(places) < num_slots
        assert memory.num_free_slots == num_slots - len(places)
    for offset in taken:
        memory.free(offset)
    assert memory.allocate(1 << (num_slots.bit_length() - 1)) == 0
