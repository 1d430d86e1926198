"""A request's tokens, log-probabilities and logits are those of the request alone: in any batch, order of
arrival and chunking."""

from __future__ import annotations

import random

import pytest

from tests.compute.kernels.threads import num_threads
from tests.same_tokens.conftest import Alone, MakeEngine
from tests.same_tokens.recorded_engine import Wish

SHORT = ("greedy-5", "plain-15", "nucleus-23", "greedy-39")


def pick(wishes: dict[str, Wish], count: int) -> list[Wish]:
    """Different requests first, then twins of the short ones: the same wish, and another request."""
    names = list(wishes)[-count:]
    return [wishes[name] for name in names + [SHORT[i % 4] for i in range(count - len(names))]]


@pytest.mark.parametrize("size", [2, 3, 8, 16, 64])
def test_in_batches(make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone, size: int) -> None:
    engine = make_engine(num_blocks=240)
    made = engine.run({0: pick(wishes, size)})
    assert len(made) == engine.max_running == size
    for wish, request_id in made:
        assert engine.trail(request_id) == alone(wish), request_id


@pytest.mark.parametrize("seed", [1, 2])
def test_in_any_order_of_arrival(
    make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone, seed: int
) -> None:
    rng = random.Random(seed)
    shuffled = rng.sample(list(wishes.values()), len(wishes))
    arrivals: dict[int, list[Wish]] = {}
    for wish in shuffled:
        arrivals.setdefault(rng.randrange(8), []).append(wish)
    engine = make_engine(max_num_batched_tokens=256, block_size=rng.choice([8, 32]), num_blocks=320)
    for wish, request_id in engine.run(arrivals):
        assert engine.trail(request_id) == alone(wish), request_id


@pytest.mark.parametrize(
    ("chunk", "names"),
    [
        (1, ["plain-15", "nucleus-23"]),
        (7, ["greedy-39", "penalties-77"]),
        (64, ["min-p-199", "plain-300"]),
        (512, ["greedy-130", "plain-300"]),
    ],
)
def test_in_chunks(
    make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone, chunk: int, names: list[str]
) -> None:
    engine = make_engine(max_num_seqs=1, max_num_batched_tokens=chunk)
    for wish, request_id in engine.run({0: [wishes[name] for name in names]}):
        assert engine.trail(request_id) == alone(wish), request_id
    lengths = [len(wishes[name].prompt) for name in names]
    expected = {1, chunk} if chunk < min(lengths) else {1, *lengths}
    assert set(engine.executor.chunks) == expected | {length % chunk for length in lengths} - {0}


def test_on_one_thread_or_two(make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone) -> None:
    names = ["greedy-5", "penalties-77", "plain-300"]
    expected = [alone(wishes[name]) for name in names]
    with num_threads(1):
        engine = make_engine()
        made = engine.run({0: [wishes[name] for name in names]})
    assert [engine.trail(request_id) for _, request_id in made] == expected


def test_the_requests_are_worth_comparing(wishes: dict[str, Wish], alone: Alone) -> None:
    """Outputs that were all alike, or rows that were, would prove nothing."""
    trails = [alone(wish) for wish in wishes.values()]
    rows = [row for trail in trails for row in trail.rows]
    assert len(set(rows)) == len(rows)
    assert all(len(set(trail.token_ids)) > 4 for trail in trails)
    assert len({trail.token_ids for trail in trails}) == len(trails)
