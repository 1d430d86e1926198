"""The cache's door, and its numbered invariants (octavo/control/cache/README.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import octavo.control.cache
from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.block_pool import NoFreeBlocksError
from octavo.control.cache.invariants import BrokenInvariantError


class CacheMachine(RuleBasedStateMachine):
    """I1 .. I6 under random appends, forks and releases, with the slots' contents kept beside them.

    Each sequence has a history of its own; what it reads back through its table must be that history.
    """

    @initialize(num_blocks=st.integers(1, 12), block_size=st.integers(1, 5))
    def build(self, num_blocks: int, block_size: int) -> None:
        self.cache = BlockManager(num_blocks, block_size)
        self.slots = {(block, slot): "?" for block in range(num_blocks) for slot in range(block_size)}
        self.histories: dict[int, list[str]] = {}
        self.next_id = 0
        self.num_writes = 0

    @rule(num_tokens=st.integers(1, 12))
    def start(self, num_tokens: int) -> None:
        if self.cache.max_appendable(self.next_id) >= num_tokens:
            self.histories[self.next_id] = []
            self._append(self.next_id, num_tokens)
            self.next_id += 1

    @precondition(lambda self: self.histories)
    @rule(data=st.data(), num_tokens=st.integers(1, 7))
    def append(self, data: st.DataObject, num_tokens: int) -> None:
        sequence_id = data.draw(st.sampled_from(sorted(self.histories)))
        room = self.cache.max_appendable(sequence_id)
        fits = self.cache.blocks_to_append(sequence_id, num_tokens) <= self.cache.num_free_blocks
        assert fits == (num_tokens <= room)
        if num_tokens <= room:
            self._append(sequence_id, num_tokens)
            return
        before = list(self.cache.block_ids(sequence_id)), self.cache.num_free_blocks
        with pytest.raises(NoFreeBlocksError):
            self.cache.append_slots(sequence_id, num_tokens)
        assert before == (self.cache.block_ids(sequence_id), self.cache.num_free_blocks)

    @precondition(lambda self: self.histories)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent_id = data.draw(st.sampled_from(sorted(self.histories)))
        num_tokens = data.draw(st.integers(1, len(self.histories[parent_id])))
        free_before = self.cache.num_free_blocks
        self.cache.fork(parent_id, self.next_id, num_tokens)
        assert self.cache.num_free_blocks == free_before
        self.histories[self.next_id] = self.histories[parent_id][:num_tokens]
        self.next_id += 1

    @precondition(lambda self: self.histories)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        sequence_id = data.draw(st.sampled_from(sorted(self.histories)))
        self.cache.release(sequence_id)
        del self.histories[sequence_id]
        if not self.histories:
            assert self.cache.num_used_blocks == 0

    @invariant()
    def invariants_i1_to_i6_hold(self) -> None:
        if hasattr(self, "cache"):
            self.cache.check_invariants()

    @invariant()
    def every_sequence_reads_its_own_history(self) -> None:
        if hasattr(self, "cache"):
            for sequence_id, history in self.histories.items():
                assert [self.slots[place] for place in self._places(sequence_id, len(history))] == history

    @invariant()
    def slots_add_up(self) -> None:
        if hasattr(self, "cache"):
            seen = {
                place
                for sequence_id, history in self.histories.items()
                for place in self._places(sequence_id, len(history))
            }
            assert self.cache.num_used_slots() == len(seen)

    def _append(self, sequence_id: int, num_tokens: int) -> None:
        for copy in self.cache.append_slots(sequence_id, num_tokens):
            for slot in range(self.cache.block_size):
                source = self.slots[copy.source_block_id, slot]
                self.slots[copy.target_block_id, slot] = source
        history = self.histories[sequence_id]
        start = len(history)
        history += [f"token {self.num_writes + offset}" for offset in range(num_tokens)]
        self.num_writes += num_tokens
        for place, token in zip(
            self._places(sequence_id, len(history))[start:], history[start:], strict=True
        ):
            self.slots[place] = token

    def _places(self, sequence_id: int, num_tokens: int) -> list[tuple[int, int]]:
        block_ids, size = self.cache.block_ids(sequence_id), self.cache.block_size
        return [(block_ids[position // size], position % size) for position in range(num_tokens)]


TestCacheInvariantsI1ToI6 = CacheMachine.TestCase
TestCacheInvariantsI1ToI6.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def _manager() -> BlockManager:
    cache = BlockManager(8, 4)
    cache.append_slots(1, 6)
    cache.fork(1, 2, 6)
    return cache


def _free_a_used_block(cache: BlockManager) -> None:
    cache.pool._empty_block_ids.append(cache.block_ids(1)[0])


def _forget_a_reference(cache: BlockManager) -> None:
    cache.pool.reference_counts[cache.block_ids(1)[0]] = 1


def _hold_a_block_too_many(cache: BlockManager) -> None:
    cache.block_ids(1).append(cache.pool.allocate())


def _hold_a_block_twice(cache: BlockManager) -> None:
    cache.tables[2].release()
    table = cache.tables[1]
    table.block_ids[1] = table.block_ids[0]
    cache.pool.reference_counts[:2] = [2, 0]
    cache.pool._empty_block_ids.append(1)


def _share_at_different_places(cache: BlockManager) -> None:
    cache.block_ids(2).reverse()


def _miscount_the_waste(cache: BlockManager) -> None:
    cache.num_empty_slots = lambda: 3  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("number", "damage"),
    [
        ("I1", _free_a_used_block),
        ("I2", _forget_a_reference),
        ("I3", _hold_a_block_too_many),
        ("I4", _hold_a_block_twice),
        ("I5", _share_at_different_places),
        ("I6", _miscount_the_waste),
    ],
)
def test_each_broken_invariant_is_named(number, damage):
    cache = _manager()
    cache.check_invariants()
    damage(cache)
    with pytest.raises(BrokenInvariantError, match=rf"^{number}: "):
        cache.check_invariants()


def test_the_readme_and_the_check_know_the_same_invariants():
    folder = Path(octavo.control.cache.__file__).parent
    documented = re.findall(r"^- \*\*(I\d+)\*\*", (folder / "README.md").read_text(), re.MULTILINE)
    checked = re.findall(r'_require\(\s*"(I\d+)"', (folder / "invariants.py").read_text())
    assert documented == sorted(set(checked))


def test_waste_counts_a_shared_block_once():
    cache = BlockManager(8, 4)
    cache.append_slots(1, 6)
    assert (cache.num_used_slots(), cache.num_empty_slots()) == (6, 2)
    cache.fork(1, 2, 5)
    assert (cache.num_used_slots(), cache.num_empty_slots()) == (6, 2)
    cache.release(1)
    assert (cache.num_used_slots(), cache.num_empty_slots()) == (5, 3)


def test_a_sequence_cannot_be_forked_onto_a_live_one():
    cache = _manager()
    with pytest.raises(ValueError, match="sequence 2 has a block table already"):
        cache.fork(1, 2, 3)
