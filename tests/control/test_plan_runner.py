"""Who is to blame for a pass that fails. test_engine.py looks at the same from the requests' side."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from octavo.control.plan_runner import PlanRunner
from octavo.sampling_params import SamplingParams
from octavo.step import BlockCopy, BlockCopyError, SampleRequest, SequenceSlice, StepPlan, StepResult
from tests.fake_executor import FakeExecutor, FaultyExecutor


def make_plan(count: int, copies: list[BlockCopy] | None = None) -> StepPlan:
    slices = [
        SequenceSlice(number, [number + 1, 7], 0, [number], SampleRequest(SamplingParams(), 0, 2))
        for number in range(count)
    ]
    return StepPlan(5, slices, copies or [])


class CountingExecutor(FaultyExecutor):
    """Notes how many slices each pass had, and whether it had copies."""

    def __init__(self, is_fatal: Callable[[SequenceSlice], bool]) -> None:
        super().__init__(32, 4, 100, is_fatal)
        self.passes: list[tuple[int, int]] = []

    def submit(self, plan: StepPlan) -> None:
        self.passes.append((len(plan.slices), len(plan.block_copies)))
        super().submit(plan)


def test_a_pass_that_works_is_run_once() -> None:
    executor = CountingExecutor(lambda piece: False)
    result = PlanRunner(executor).run(make_plan(8))
    assert executor.passes == [(8, 0)]
    assert set(result.tokens) == set(range(8))


@pytest.mark.parametrize("culprits", [{3}, {0, 7}, set(range(8))])
def test_halves_are_run_until_the_culprits_stand_alone(culprits: set[int]) -> None:
    executor = CountingExecutor(lambda piece: piece.sequence_id in culprits)
    expected = PlanRunner(FakeExecutor(32, 4, 100)).run(make_plan(8))
    result = PlanRunner(executor).run(make_plan(8, [BlockCopy(20, 21)]))
    assert result.failures == dict.fromkeys(
        culprits, "internal error while computing this request (RuntimeError)"
    )
    assert result.tokens == {one: expected.tokens[one] for one in range(8) if one not in culprits}
    assert [copies for _, copies in executor.passes] == [1] + [0] * (len(executor.passes) - 1), (
        "copies are made once"
    )
    assert len(executor.passes) <= 1 + 2 * 3 * len(culprits)


def test_copies_that_fail_are_nobodys_fault_and_not_tried_again() -> None:
    class NoCopies(CountingExecutor):
        def collect(self) -> StepResult:
            self._in_flight.popleft()
            raise BlockCopyError("the disk is full")

    executor = NoCopies(lambda piece: False)
    with pytest.raises(BlockCopyError, match="the disk is full"):
        PlanRunner(executor).run(make_plan(4, [BlockCopy(20, 21)]))
    assert len(executor.passes) == 1


def test_a_plan_of_copies_alone_that_breaks_says_that_copies_failed() -> None:
    class Broken(CountingExecutor):
        def collect(self) -> StepResult:
            self._in_flight.popleft()
            raise RuntimeError("secret path")

    with pytest.raises(BlockCopyError, match=r"^block copies failed \(RuntimeError\)$"):
        PlanRunner(Broken(lambda piece: False)).run(StepPlan(5, [], [BlockCopy(20, 21)]))


def test_a_result_left_over_from_an_interrupted_step_is_passed_over() -> None:
    executor = FakeExecutor(32, 4, 100)
    executor.submit(StepPlan(4, make_plan(1).slices))
    result = PlanRunner(executor).run(make_plan(2))
    assert (result.step_id, set(result.tokens)) == (5, {0, 1})


def test_an_interrupt_goes_through() -> None:
    class Interrupted(FakeExecutor):
        def collect(self) -> StepResult:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PlanRunner(Interrupted(32, 4, 100)).run(make_plan(4))


def test_closing_closes_the_executor() -> None:
    executor = FakeExecutor(32, 4, 100)
    PlanRunner(executor).close()
    assert executor.is_closed
