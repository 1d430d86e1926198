"""Every combination of how a request may be served, against the request alone. Long: see scripts/test."""

from __future__ import annotations

import random
from itertools import product

import pytest

from octavo.control.scheduler.scheduler import Scheduler
from tests.compute.kernels.threads import num_threads
from tests.same_tokens.conftest import Alone, MakeEngine
from tests.same_tokens.recorded_engine import RestlessScheduler, Wish

COMBINATIONS = list(
    product([8, 16, 32], [1, 7, 64, 1024], [False, True], ["undisturbed", "recompute", "swap"])
)


@pytest.mark.slow
@pytest.mark.parametrize(("block_size", "budget", "prefix_caching", "preemption"), COMBINATIONS)
def test_all_ways_together(
    make_engine: MakeEngine,
    wishes: dict[str, Wish],
    alone: Alone,
    block_size: int,
    budget: int,
    prefix_caching: bool,
    preemption: str,
) -> None:
    """Twins, arrivals over some steps, one thread or two: drawn, and the same in every run."""
    rng = random.Random(f"{block_size} {budget} {prefix_caching} {preemption}")
    # Single tokens take as many steps as there are tokens.
    names = [name for name in wishes if budget > 1 or len(wishes[name].prompt) < 40]
    arrivals: dict[int, list[Wish]] = {}
    count = 10 if budget > 1 else 4
    for name in rng.choices(names, k=count):
        arrivals.setdefault(rng.randrange(6), []).append(wishes[name])
    with num_threads(rng.choice([1, 2])):
        engine = make_engine(
            num_blocks=3000 // block_size,
            block_size=block_size,
            max_num_seqs=min(budget, 16),
            max_num_batched_tokens=budget,
            prefix_caching=prefix_caching,
            num_host_blocks=3000 // block_size if preemption == "swap" else 0,
            make_scheduler=Scheduler if preemption == "undisturbed" else RestlessScheduler,
        )
        made = engine.run(arrivals)
    assert len(made) == count
    assert (engine.num_preemptions > 0) is (preemption != "undisturbed")
    for wish, request_id in made:
        assert engine.trail(request_id) == alone(wish), request_id
