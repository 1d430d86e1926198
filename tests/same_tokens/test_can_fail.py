"""The comparison notices the least there is to notice: one bit of one weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from octavo.compute.executor.worker import Worker
from tests.same_tokens.conftest import Alone, MakeEngine
from tests.same_tokens.recorded_engine import Wish


@contextmanager
def one_ulp_up(weight: Tensor) -> Iterator[None]:
    """The largest element of a weight, raised to the next float32."""
    place = int(weight.abs().argmax())
    flat = weight.view(-1)
    before = flat[place].clone()
    flat[place] = torch.nextafter(before, torch.tensor(torch.inf))
    try:
        yield
    finally:
        flat[place] = before


def test_one_ulp_of_one_weight(
    make_engine: MakeEngine, worker: Worker, wishes: dict[str, Wish], alone: Alone
) -> None:
    wish = wishes["greedy-39"]
    expected = alone(wish)
    weight = worker._decoder._head._before.weight
    assert weight is not None
    with one_ulp_up(weight):
        engine = make_engine(num_blocks=20)
        ((_, request_id),) = engine.run({0: [wish]})
    found = engine.trail(request_id)
    assert found.token_ids == expected.token_ids, "so small a change should be seen in the rows alone"
    assert found != expected
    ((_, request_id),) = engine.run({0: [wish]})
    assert engine.trail(request_id) == expected, "and the weight is what it was"
