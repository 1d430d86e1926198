"""A request that lost its blocks, by any way and any number of times, goes on as if nothing had been."""

from __future__ import annotations

import pytest

from tests.same_tokens.conftest import Alone, MakeEngine
from tests.same_tokens.recorded_engine import RecordedEngine, RestlessScheduler, Wish

SHORT = ("greedy-5", "plain-15", "nucleus-23", "greedy-39")
FORCED = ("nucleus-23", "greedy-39", "penalties-77")


def check(engine: RecordedEngine, wishes: list[Wish], alone: Alone) -> None:
    for wish, request_id in engine.run({0: wishes}):
        assert engine.trail(request_id) == alone(wish), request_id


@pytest.mark.parametrize(("prefix_caching", "num_host_blocks"), [(False, 0), (True, 0), (False, 30)])
def test_in_a_tiny_pool(
    make_engine: MakeEngine,
    wishes: dict[str, Wish],
    alone: Alone,
    prefix_caching: bool,
    num_host_blocks: int,
) -> None:
    """Three of the four begin, and all of them together outgrow the pool."""
    engine = make_engine(
        num_blocks=18, block_size=4, prefix_caching=prefix_caching, num_host_blocks=num_host_blocks
    )
    check(engine, [wishes[name] for name in SHORT], alone)
    assert engine.num_preemptions > 0, "the pool was too large to test anything"
    assert (max(trace.num_swapped for trace in engine.traces) > 0) is (num_host_blocks > 0)


@pytest.mark.parametrize(("block_size", "num_host_blocks"), [(8, 0), (16, 60), (32, 60)])
def test_at_any_time(
    make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone, block_size: int, num_host_blocks: int
) -> None:
    """Before every third step somebody gives way though there is room, in the middle of prompts too."""
    engine = make_engine(
        num_blocks=60,
        block_size=block_size,
        max_num_batched_tokens=64,
        num_host_blocks=num_host_blocks,
        make_scheduler=RestlessScheduler,
    )
    check(engine, [wishes[name] for name in FORCED], alone)
    assert engine.num_preemptions >= 3
