"""Pins hold prefixes for a time; they give way before a request that runs alone goes short."""

from __future__ import annotations

import pytest

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.pins import PrefixPins
from octavo.errors import RequestError
from octavo.sampling_params import SamplingParams
from tests.control.fake_engine import FakeEngine

TOKENS = list(range(1, 12))  # two blocks of 4, and a part


def make_cache(num_blocks: int = 8) -> BlockManager:
    """What a request over TOKENS has left behind."""
    cache = BlockManager(num_blocks, 4, prefix_caching=True)
    keys: list[bytes] = []
    cache.append_slots(0, len(TOKENS))
    cache.commit(0, TOKENS, keys, "", len(TOKENS))
    cache.commit_part(0, TOKENS, keys, "", len(TOKENS))
    cache.release(0)
    return cache


def test_a_pin_holds_whole_blocks_against_eviction() -> None:
    cache = make_cache(num_blocks=6)
    pins = PrefixPins(cache)
    pin = pins.pin(TOKENS, "", expires_seconds=10.0)
    assert (pin.num_tokens, pin.num_blocks, len(pins)) == (8, 2, 1)
    assert cache.num_used_blocks == 2
    cache.append_slots(5, 16)  # all other blocks
    cache.release(5)
    assert cache.find_prefix(TOKENS, [], "", 11).num_tokens == 8
    cache.check_invariants()


def test_only_what_is_cached_can_be_pinned_and_under_its_salt() -> None:
    pins = PrefixPins(make_cache())
    with pytest.raises(RequestError, match="no whole block of these 3 tokens"):
        pins.pin([7, 8, 9], "", 10.0)
    with pytest.raises(RequestError, match="run them first"):
        pins.pin(TOKENS, "tenant", 10.0)
    assert len(pins) == 0


def test_it_ends_with_its_time_and_not_before() -> None:
    cache = make_cache()
    pins = PrefixPins(cache)
    pins.pin(TOKENS, "", expires_seconds=10.0)
    later = pins.pin(TOKENS[:4], "", expires_seconds=20.0)
    pins.expire(9.999)
    assert len(pins) == 2
    pins.expire(10.0)
    assert pins.pins == [later]
    assert cache.num_used_blocks == 1
    pins.expire(1e9)
    assert (len(pins), cache.num_used_blocks) == (0, 0)
    assert cache.find_prefix(TOKENS, [], "", 11).num_tokens == 11, "it is cached still"
    cache.check_invariants()


def test_the_one_that_ends_soonest_is_dropped_first() -> None:
    pins = PrefixPins(make_cache())
    late, soon = pins.pin(TOKENS, "", 20.0), pins.pin(TOKENS, "", 10.0)
    assert pins.drop_soonest()
    assert pins.pins == [late]
    with pytest.raises(RequestError, match=f"no pin {soon.pin_id}"):
        pins.unpin(soon.pin_id)
    pins.unpin(late.pin_id)
    assert not pins.drop_soonest()


# -- through the engine


def run_and_pin(fake: FakeEngine, ttl_seconds: float = 1000.0) -> int:
    fake.engine.submit("first", TOKENS, SamplingParams(max_tokens=2, ignore_eos=True))
    fake.run()
    return fake.engine.cache.pin(TOKENS, ttl_seconds=ttl_seconds).pin_id


def test_a_request_that_runs_alone_takes_what_is_pinned() -> None:
    fake = FakeEngine(num_blocks=6, prefix_caching=True)
    pin_id = run_and_pin(fake)
    fake.engine.submit("second", list(range(100, 120)), SamplingParams(max_tokens=3, ignore_eos=True))
    assert len(fake.run()["second", 0].token_ids) == 3
    with pytest.raises(RequestError, match=f"no pin {pin_id}"):
        fake.engine.cache.unpin(pin_id)


def test_a_request_that_grows_alone_takes_what_is_pinned() -> None:
    fake = FakeEngine(num_blocks=6, prefix_caching=True)
    run_and_pin(fake)
    fake.engine.submit("second", [50, 51, 52], SamplingParams(max_tokens=20, ignore_eos=True))
    fake.step()
    assert len(fake.scheduler.pins) == 1, "it fits at first"
    assert len(fake.run()["second", 0].token_ids) == 20
    assert len(fake.scheduler.pins) == 0


def test_a_pin_outlives_requests_that_fit_beside_it() -> None:
    fake = FakeEngine(num_blocks=20, prefix_caching=True)
    run_and_pin(fake)
    for number in range(10):
        fake.engine.submit(
            str(number), list(range(100 * number, 100 * number + 30)), SamplingParams(max_tokens=3)
        )
    while fake.engine.has_work:
        fake.step()
    assert len(fake.scheduler.pins) == 1
    fake.engine.submit("again", TOKENS, SamplingParams(max_tokens=1, ignore_eos=True))
    fake.step()
    assert fake.outputs["again", 0].deltas[-1].num_cached_tokens == 8


def test_times_to_live_are_above_zero() -> None:
    fake = FakeEngine(prefix_caching=True)
    run_and_pin(fake)
    for ttl_seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(RequestError, match="ttl_seconds must be above 0"):
            fake.engine.cache.pin(TOKENS, ttl_seconds=ttl_seconds)
