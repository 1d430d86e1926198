"""The promise in the formats that are used unless somebody says otherwise: packed weights, half-width KV."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compute.kernels.threads import num_threads
from tests.same_tokens.conftest import Alone, MakeEngine
from tests.same_tokens.recorded_engine import RestlessScheduler, Wish


@pytest.fixture(scope="module")
def alone_by_default(make_default_engine: MakeEngine) -> Iterator[Alone]:
    yield Alone(make_default_engine)


@pytest.mark.parametrize("size", [3, 8, 32])
def test_in_batches(
    make_default_engine: MakeEngine, wishes: dict[str, Wish], alone_by_default: Alone, size: int
) -> None:
    engine = make_default_engine(num_blocks=320, max_num_batched_tokens=300)
    every = list(wishes.values())
    for wish, request_id in engine.run({0: (every * 4)[-size:]}):
        assert engine.trail(request_id) == alone_by_default(wish), request_id


@pytest.mark.parametrize(
    ("chunk", "names"), [(1, ["nucleus-23"]), (7, ["penalties-77"]), (64, ["plain-300"])]
)
def test_in_chunks(
    make_default_engine: MakeEngine,
    wishes: dict[str, Wish],
    alone_by_default: Alone,
    chunk: int,
    names: list[str],
) -> None:
    engine = make_default_engine(max_num_seqs=1, max_num_batched_tokens=chunk)
    for wish, request_id in engine.run({0: [wishes[name] for name in names]}):
        assert engine.trail(request_id) == alone_by_default(wish), request_id


@pytest.mark.parametrize(("block_size", "num_host_blocks"), [(8, 0), (32, 60)])
def test_after_hits_and_preemptions_on_one_thread(
    make_default_engine: MakeEngine,
    wishes: dict[str, Wish],
    alone_by_default: Alone,
    block_size: int,
    num_host_blocks: int,
) -> None:
    some = [wishes[name] for name in ("nucleus-23", "penalties-77", "plain-300")]
    expected = [alone_by_default(wish) for wish in some]
    with num_threads(1):
        engine = make_default_engine(
            block_size=block_size,
            prefix_caching=True,
            num_host_blocks=num_host_blocks,
            max_num_batched_tokens=64,
            make_scheduler=RestlessScheduler,
        )
        made = engine.run({0: some})
        made += engine.run({0: some})
    assert [engine.trail(request_id) for _, request_id in made] == expected * 2
    if num_host_blocks == 0:  # what was swapped out is told to the prefix index no more
        assert engine.num_cached_tokens(made[-1][1]) == 299
