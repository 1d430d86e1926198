"""Beside `n` continuations and beams nobody's logits change, and theirs are what they are alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.control.scheduler.scheduler import Scheduler
from octavo.sampling_params import SamplingParams
from tests.same_tokens.conftest import NUM_OUTPUT_TOKENS, Alone, MakeEngine
from tests.same_tokens.recorded_engine import RecordedEngine, RestlessScheduler, Wish

WIDTH = 4


def with_seed(wish: Wish, seed: int) -> Wish:
    return Wish(wish.name, wish.prompt, replace(wish.params, seed=seed))


@pytest.fixture(scope="module")
def beams(wishes: dict[str, Wish]) -> Wish:
    params = SamplingParams(
        n=2,
        best_of=WIDTH,
        use_beam_search=True,
        max_tokens=NUM_OUTPUT_TOKENS,
        ignore_eos=True,
        logprobs=1,
    )
    return Wish("beams", wishes["greedy-39"].prompt, params)


@pytest.fixture(scope="module")
def beams_alone(make_engine: MakeEngine, beams: Wish) -> RecordedEngine:
    engine = make_engine(num_blocks=40)
    engine.run({0: [beams]})
    return engine


@pytest.mark.parametrize(
    ("block_size", "prefix_caching", "num_host_blocks"), [(16, False, None), (8, True, 0), (32, False, 60)]
)
def test_continuations_and_beams_beside_others(
    make_engine: MakeEngine,
    wishes: dict[str, Wish],
    alone: Alone,
    beams: Wish,
    beams_alone: RecordedEngine,
    block_size: int,
    prefix_caching: bool,
    num_host_blocks: int | None,
) -> None:
    """Also where they are made to give way now and then, to the host pool or to be computed again."""
    engine = make_engine(
        num_blocks=80,
        block_size=block_size,
        prefix_caching=prefix_caching,
        num_host_blocks=num_host_blocks or 0,
        max_num_batched_tokens=64,
        make_scheduler=Scheduler if num_host_blocks is None else RestlessScheduler,
    )
    several = wishes["nucleus-23"]
    several = Wish("several", several.prompt, replace(several.params, n=3))
    others = [wishes["plain-15"], wishes["greedy-5"]]
    made = engine.run({0: [beams, several], 2: others})
    assert (engine.num_preemptions > 0) is (num_host_blocks is not None)

    for wish, request_id in made[2:]:
        assert engine.trail(request_id) == alone(wish), request_id
    # Continuation i samples as a request of its own with the next seed but i.
    assert several.params.seed is not None
    for index in range(3):
        single = with_seed(wishes["nucleus-23"], several.params.seed + index)
        assert engine.trail(made[1][1], index) == alone(single), index
    assert outcome(engine, made[0][1]) == outcome(beams_alone, "beams#0")
    assert engine.executor.beam_rows == beams_alone.executor.beam_rows
    assert {len(rows) for rows in engine.executor.beam_rows.values()} == {1, WIDTH}


def outcome(engine: RecordedEngine, request_id: str) -> list[tuple[object, ...]]:
    deltas = [engine.deltas[request_id, index][-1] for index in range(2)]
    return [(delta.token_ids, delta.logprobs) for delta in deltas]
