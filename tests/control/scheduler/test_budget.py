"""The budget of a step: what fits into the target time, as learnt from steps whose cost is known here."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from octavo.control.scheduler.budget import MIN_PREFILL_TOKENS, TokenBudget
from octavo.sampling_params import SamplingParams
from octavo.step import StepResult
from tests.control.fake_engine import FakeEngine

FIXED_SECONDS, SECONDS_PER_TOKEN = 0.010, 0.0005
TARGET_SECONDS = 0.050  # fits 80 tokens

Cost = Callable[[int], float]


def cost(num_tokens: int) -> float:
    return FIXED_SECONDS + SECONDS_PER_TOKEN * num_tokens


def observe_sizes(budget: TokenBudget, sizes: list[int], cost: Cost = cost) -> None:
    for num_tokens in sizes:
        budget.observe(num_tokens, cost(num_tokens))


def test_without_a_target_it_is_the_limit_whatever_was_seen() -> None:
    budget = TokenBudget(512, None)
    observe_sizes(budget, [1, 100, 512])
    assert budget.tokens(num_decodes=100) == 512


def test_before_anything_was_seen_it_is_the_limit() -> None:
    assert TokenBudget(512, TARGET_SECONDS).tokens(num_decodes=3) == 512


def test_it_is_what_fits_into_the_target() -> None:
    budget = TokenBudget(512, TARGET_SECONDS)
    observe_sizes(budget, [5, 200, 17, 512, 90])
    assert budget.tokens(num_decodes=4) == pytest.approx(80, abs=1)
    assert TokenBudget(64, TARGET_SECONDS).tokens(num_decodes=4) == 64


def test_nobody_waits_where_nobody_decodes() -> None:
    budget = TokenBudget(512, TARGET_SECONDS)
    observe_sizes(budget, [5, 200, 17, 512, 90])
    assert budget.tokens(num_decodes=0) == 512


def test_steps_of_one_size_put_all_time_on_the_tokens() -> None:
    budget = TokenBudget(512, TARGET_SECONDS)
    observe_sizes(budget, [40] * 30)  # 30 ms each: 66 such tokens' worth
    assert budget.tokens(num_decodes=4) == int(TARGET_SECONDS / (cost(40) / 40))


@pytest.mark.parametrize("num_decodes", [1, 50, 500])
def test_a_target_out_of_reach_leaves_prefill_its_least(num_decodes: int) -> None:
    budget = TokenBudget(512, FIXED_SECONDS / 2)
    observe_sizes(budget, [5, 200, 17, 512, 90])
    assert budget.tokens(num_decodes) == min(num_decodes + MIN_PREFILL_TOKENS, 512)


def test_it_follows_a_machine_that_becomes_slower_and_faster_again() -> None:
    budget = TokenBudget(512, TARGET_SECONDS)
    rng = random.Random(0)

    def settle(factor: float) -> int:
        for _ in range(300):
            num_tokens = rng.randint(1, 200)
            budget.observe(num_tokens, factor * cost(num_tokens))
        return budget.tokens(num_decodes=4)

    assert settle(1.0) == pytest.approx(80, abs=2)
    assert settle(2.0) == pytest.approx(30, abs=2)
    assert settle(1.0) == pytest.approx(80, abs=2)


def test_nothing_measured_is_nothing_learnt() -> None:
    budget = TokenBudget(512, TARGET_SECONDS)
    budget.observe(0, 3.0)
    assert budget.tokens(num_decodes=4) == 512


# -- through the scheduler, in virtual time


def virtual_step(fake: FakeEngine, cost: Cost) -> tuple[int, float]:
    """One step that costs what it is said to: tokens and seconds."""
    draft = fake.scheduler.plan_step()
    fake.executor.submit(draft.plan)
    result: StepResult = fake.executor.collect()
    fake.engine._apply(draft, result, [])
    num_tokens = draft.num_prefill_tokens + draft.num_decode_tokens
    seconds = cost(num_tokens)
    fake.scheduler.learn(draft, result, seconds)
    fake.cache.check_invariants()
    return num_tokens, seconds


def serve_long_prompts(fake: FakeEngine, cost: Cost) -> tuple[list[float], list[int]]:
    """Eight requests decode; long prompts come without end. Seconds a step, and prefill tokens a step."""
    for number in range(8):
        fake.engine.submit(str(number), [number + 1] * 5, SamplingParams(max_tokens=900, ignore_eos=True))
    virtual_step(fake, cost)
    seconds, prefill_tokens = [], []
    for step in range(250):
        if fake.engine.num_waiting == 0:
            fake.engine.submit(
                f"long-{step}",
                [step % 7 + 1, *range(1, 700)],
                SamplingParams(max_tokens=1, ignore_eos=True),
            )
        num_tokens, step_seconds = virtual_step(fake, cost)
        seconds.append(step_seconds)
        prefill_tokens.append(num_tokens - 8)
    return seconds, prefill_tokens


def make_fake(target_itl_seconds: float | None) -> FakeEngine:
    return FakeEngine(
        num_blocks=6000,
        max_num_seqs=16,
        max_num_batched_tokens=512,
        max_model_len=2000,
        target_itl_seconds=target_itl_seconds,
    )


def test_steps_keep_to_the_target_while_long_prompts_come() -> None:
    seconds, prefill_tokens = serve_long_prompts(make_fake(TARGET_SECONDS), cost)
    settled = seconds[20:]
    assert max(settled) <= 1.15 * TARGET_SECONDS
    assert sum(settled) / len(settled) > 0.8 * TARGET_SECONDS, "what fits is used"
    assert min(prefill_tokens) >= 1
    without, _ = serve_long_prompts(make_fake(None), cost)
    assert max(without[20:]) > 4 * TARGET_SECONDS


def test_prefill_goes_on_where_the_target_is_out_of_reach() -> None:
    fake = make_fake(FIXED_SECONDS / 2)
    _, prefill_tokens = serve_long_prompts(fake, cost)
    # The last chunk of a prompt may be shorter; the next prompt then fills the rest.
    assert sum(prefill_tokens[20:]) / len(prefill_tokens[20:]) >= 0.9 * MIN_PREFILL_TOKENS
