"""Recording the block map of a real run: what it shows is what the pager did."""

from __future__ import annotations

import itertools
from dataclasses import replace

from octavo.bench.blocks import make_arrivals, record_blocks
from octavo.bench.blocks_spec import BlocksSpec
from octavo.config import CacheConfig

SPEC = BlocksSpec(num_requests=8, prefix=24, mean_prompt=8, mean_output=12, mean_gap=3.0)


def test_a_run_shows_all_states_and_ends_with_nothing_used(tiny_config):
    history = record_blocks(tiny_config, SPEC)
    counts = history.counts()
    for state in ("used", "shared", "cached"):
        assert any(count[state] for count in counts)
    assert counts[0] == {"free": history.num_blocks}
    assert counts[-1]["used"] == counts[-1]["shared"] == 0
    assert all(sum(count.values()) == history.num_blocks for count in counts)
    assert history.step_ids == sorted(history.step_ids)
    # The common prefix: blocks that several requests hold at once.
    grid, requests = history.owners()
    assert any(cell == 2 for row in grid for cell in row)
    assert set(requests) == {f"r{number}" for number in range(8)}


def test_fewer_snapshots_are_kept_where_asked_for(tiny_config):
    every_step = record_blocks(tiny_config, SPEC)
    every_fourth = record_blocks(tiny_config, replace(SPEC, every=4))
    assert len(every_fourth.maps) < len(every_step.maps) / 2
    assert every_fourth.step_ids[-1] == every_step.step_ids[-1]


def test_without_a_size_the_pool_is_small(tiny_config):
    history = record_blocks(replace(tiny_config, cache=CacheConfig()), replace(SPEC, num_requests=1))
    assert history.num_blocks == 96 * 2**20 // (16 * 192)


def test_arrivals_begin_alike_and_some_fork():
    arrivals = make_arrivals(SPEC, list(range(50)))
    assert len({tuple(one.prompt_token_ids[:24]) for one in arrivals}) == 1
    assert [one.params.n for one in arrivals] == [1, 1, 1, 2, 1, 1, 1, 2]
    assert all(early.step <= late.step for early, late in itertools.pairwise(arrivals))
    assert arrivals == make_arrivals(SPEC, list(range(50)))
