"""Swap or recompute: the cheaper by what was measured."""

from __future__ import annotations

from octavo.control.scheduler.preemption import PreemptionCost

BLOCK_BYTES = 2**20


def test_before_anything_was_measured_a_guess_decides() -> None:
    cost = PreemptionCost(BLOCK_BYTES)
    assert cost.prefers_swap(num_tokens=16, num_blocks=1)
    assert not cost.prefers_swap(num_tokens=1, num_blocks=1), "a copy out and in is two copies"


def test_slow_copies_make_computing_cheaper_and_fast_ones_dearer() -> None:
    cost = PreemptionCost(BLOCK_BYTES)
    cost.observe_step(100, 0.1)  # 1 ms a token
    cost.observe_copies(10, 0.5)  # 50 ms a block
    assert not cost.prefers_swap(num_tokens=16, num_blocks=1)
    assert cost.prefers_swap(num_tokens=101, num_blocks=1)
    for _ in range(50):
        cost.observe_copies(10, 0.001)
    assert cost.prefers_swap(num_tokens=16, num_blocks=1)


def test_the_first_measurement_replaces_the_guess_and_later_ones_move_it() -> None:
    cost = PreemptionCost(BLOCK_BYTES)
    cost.observe_copies(1, 0.010)
    cost.observe_step(100, 0.1)
    assert cost.prefers_swap(21, 1) and not cost.prefers_swap(19, 1)
    cost.observe_step(100, 0.2)  # one step that took long moves 1 ms to 1.2 ms
    assert cost.prefers_swap(17, 1) and not cost.prefers_swap(16, 1)


def test_small_steps_and_empty_copies_say_nothing() -> None:
    cost = PreemptionCost(BLOCK_BYTES)
    cost.observe_copies(1, 0.010)
    cost.observe_step(100, 0.1)
    cost.observe_step(1, 5.0)
    cost.observe_copies(0, 5.0)
    cost.observe_copies(3, 0.0)
    assert cost.prefers_swap(21, 1) and not cost.prefers_swap(19, 1)
