"""What holds of the promise on torch's own kernels, and what does not: see docs/determinism.md.

There the same steps give the same bits, wherever the KV lies; but a step of another shape may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.compute.kernels.threads import num_threads
from tests.same_tokens.conftest import MakeEngine
from tests.same_tokens.recorded_engine import RestlessScheduler, Trail, Wish

NUM_TOKENS = 6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with num_threads(1):
        yield


@pytest.fixture(scope="module")
def some(wishes: dict[str, Wish]) -> list[Wish]:
    short = [wishes[name] for name in ("greedy-5", "plain-15")]
    return [replace(wish, params=replace(wish.params, max_tokens=NUM_TOKENS)) for wish in short]


def one_by_one(make_engine: MakeEngine, some: list[Wish], **settings: object) -> list[Trail]:
    engine = make_engine(num_blocks=20, **settings)
    return [engine.trail(request_id) for wish in some for _, request_id in engine.run({0: [wish]})]


def test_the_same_steps_in_other_blocks_and_after_swaps(
    make_torch_engine: MakeEngine, some: list[Wish]
) -> None:
    expected = one_by_one(make_torch_engine, some)
    # The second engine's blocks are others, as its first request's are still kept.
    assert one_by_one(make_torch_engine, some[::-1], prefix_caching=True) == expected[::-1]
    # A request that is swapped out alone is back in the same step.
    swapped = one_by_one(
        make_torch_engine, some, num_host_blocks=20, make_scheduler=RestlessScheduler, block_size=16
    )
    assert swapped == expected


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="of other libraries nothing is known")
def test_another_batch_gives_other_bits(make_torch_engine: MakeEngine, some: list[Wish]) -> None:
    """MKL's products take other ways for other numbers of rows: decision 4. And the comparison sees it."""
    expected = one_by_one(make_torch_engine, some)
    engine = make_torch_engine(num_blocks=20)
    found = [engine.trail(request_id) for _, request_id in engine.run({0: some})]
    differences = [
        one != other
        for trail, single in zip(found, expected, strict=True)
        for one, other in zip(trail.rows, single.rows, strict=True)
    ]
    assert len(differences) == 2 * NUM_TOKENS
    assert any(differences)
