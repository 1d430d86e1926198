"""The pager under everything at once: whatever happens, every output is what it would be alone.

The invariants I1 .. I9 (octavo/control/cache/README.md) are checked after every operation; see
pager_driver.py for how a wrong slot shows as a wrong token.
"""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.block_table import BlockTable
from octavo.control.cache.prefix_hit import PrefixHit
from octavo.control.cache.prefix_index import PrefixIndex
from octavo.control.cache.swap_space import SwapSpace
from octavo.control.scheduler.roster import Roster
from tests.control.pager_driver import DriverConfig, PagerDriver, random_prompt, random_request, run_random

NUM_STEPS = 100_000
# Engines are independent of each other, so that the work may be cut for several workers.
NUM_PARTS = 4

seeds = st.integers(0, 2**32)
picks = st.integers(0, 1000)


class PagerMachine(RuleBasedStateMachine):
    """The driver's operations, chosen and shrunk by Hypothesis."""

    @initialize(
        num_blocks=st.integers(4, 24),
        block_size=st.integers(1, 5),
        max_num_seqs=st.integers(1, 8),
        extra_budget=st.integers(0, 12),
        prefix_caching=st.booleans(),
        num_host_blocks=st.sampled_from([0, 3, 10, 40]),
        policy=st.sampled_from(["fcfs", "priority", "fair"]),
    )
    def build(self, **shape: object) -> None:
        self.driver = PagerDriver(DriverConfig(**shape))  # type: ignore[arg-type]

    @rule(seed=seeds)
    def submit(self, seed: int) -> None:
        self.driver.submit(*random_request(random.Random(seed)))

    @rule(times=st.integers(1, 4))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.driver.step()

    @rule(pick=picks, index=st.sampled_from([None, 0, 1]))
    def abort(self, pick: int, index: int | None) -> None:
        self.driver.abort(pick, index)

    @rule(pick=picks)
    def preempt_or_swap(self, pick: int) -> None:
        self.driver.preempt(pick)

    @rule(seed=seeds, salt=st.sampled_from(["", "s"]))
    def pin(self, seed: int, salt: str) -> None:
        self.driver.pin(random_prompt(random.Random(seed)), salt)

    @rule(pick=picks)
    def unpin(self, pick: int) -> None:
        self.driver.unpin(pick)

    @rule()
    def drop(self) -> None:
        self.driver.drop()

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.finish()


TestPagerInvariantsI1ToI9 = PagerMachine.TestCase
TestPagerInvariantsI1ToI9.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_a_hundred_thousand_random_steps(part):
    seen = run_random(part, NUM_STEPS // NUM_PARTS)
    assert seen == {"preemption", "swap", "hit", "sharing", "beams", "pin", "pin given up"}


def _append_without_copying(table: BlockTable, num_tokens: int) -> None:
    """Copy-on-write, forgotten."""
    while len(table.block_ids) * table._block_size < table.num_tokens + num_tokens:
        table.block_ids.append(table._pool.allocate())
    table.num_tokens += num_tokens
    table.owns_last = True


def _find_one_token_too_many(self: BlockManager, *args: object) -> PrefixHit:
    hit = _FIND_PREFIX(self, *args)  # type: ignore[arg-type]
    if hit.part_block_id is None or hit.num_tokens + 1 > args[3]:  # type: ignore[operator]
        return hit
    return PrefixHit(hit.block_ids, hit.num_tokens + 1, hit.part_block_id, hit.num_revived_blocks)


def _commit_before_it_is_computed(self: Roster, sequence: object, num_tokens: int) -> None:
    table = self._cache.tables[sequence.sequence_id]  # type: ignore[attr-defined]
    sequence.num_computed_tokens = table.num_tokens  # type: ignore[attr-defined]
    _ADVANCE(self, sequence, num_tokens)  # type: ignore[arg-type]


_FIND_PREFIX = BlockManager.find_prefix
_ADVANCE = Roster.advance


@pytest.mark.parametrize(
    ("owner", "name", "damage"),
    [
        (BlockTable, "append", _append_without_copying),
        (
            BlockTable,
            "_must_copy_last_block",
            lambda table: (
                table._pool.reference_counts[table.block_ids[-1]] > 1
                and table.num_tokens % table._block_size != 0
            ),
        ),
        (BlockManager, "find_prefix", _find_one_token_too_many),
        (PrefixIndex, "remove", lambda index, block_id: None),
        (SwapSpace, "move_out", lambda space, tables: space._move_out(tables)[:-1]),
        (Roster, "advance", _commit_before_it_is_computed),
    ],
    ids=["no copy", "forked inside", "hit too long", "stale entries", "lost copy", "early"],
)
def test_each_kind_of_damage_is_noticed(owner, name, damage):
    """The driver can fail: known mistakes, made on purpose, do not get past it."""
    if owner is SwapSpace:
        SwapSpace._move_out = SwapSpace.move_out  # type: ignore[attr-defined]
    with patch.object(owner, name, damage), pytest.raises(Exception):  # noqa: B017
        run_random(0, 5_000)
