"""The bound on the gap between two tokens of a running sequence: one step, unless it is preempted."""

from __future__ import annotations

import random

import pytest

from octavo.sampling_params import SamplingParams
from tests.control.fake_engine import VOCAB_SIZE, FakeEngine


def prompt_of(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(1, VOCAB_SIZE) for _ in range(length)]


def random_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        n=rng.choice([1, 1, 3]), max_tokens=rng.randint(5, 40), ignore_eos=True, seed=rng.randrange(2**30)
    )


class GapWatch:
    """Steps one engine and notes, of each choice, after how many steps its next token came."""

    def __init__(self, fake: FakeEngine) -> None:
        self.fake = fake
        self.num_steps = 0
        self.gaps: list[int] = []
        self.gaps_of_preempted: list[int] = []
        self._last: dict[tuple[str, int], tuple[int, int]] = {}  # step of the last token, preemptions then
        self._sequences: dict[tuple[str, int], object] = {}

    def submit(self, request_id: str, prompt: list[int], params: SamplingParams) -> None:
        request = self.fake.engine.submit(request_id, prompt, params)
        for sequence in request.sequences:
            self._sequences[request_id, sequence.index] = sequence

    def step(self) -> None:
        self.num_steps += 1
        for delta in self.fake.step():
            key = (delta.request_id, delta.index)
            num_preemptions = self._sequences[key].num_preemptions  # type: ignore[attr-defined]
            if key in self._last:
                step, preemptions_then = self._last[key]
                gaps = self.gaps if num_preemptions == preemptions_then else self.gaps_of_preempted
                gaps.append(self.num_steps - step)
            self._last[key] = (self.num_steps, num_preemptions)


@pytest.mark.parametrize("policy_seed", range(4))
@pytest.mark.parametrize("prefix_caching", [False, True])
def test_long_prompts_never_hold_up_those_who_decode(policy_seed: int, prefix_caching: bool) -> None:
    rng = random.Random(policy_seed)
    fake = FakeEngine(
        num_blocks=2000, max_num_seqs=12, max_num_batched_tokens=24, prefix_caching=prefix_caching
    )
    watch = GapWatch(fake)
    for number in range(60):
        # Prompts of up to 25 whole steps, one after the other, while the others decode.
        length = rng.choice([3, 10, 600])
        watch.submit(str(number), prompt_of(rng, length), random_params(rng))
        for _ in range(rng.randint(0, 6)):
            watch.step()
    while fake.engine.has_work:
        watch.step()
    assert max(len(plan.slices[0].token_ids) for plan in fake.plans) > 12, "there were long chunks"
    assert not watch.gaps_of_preempted
    assert set(watch.gaps) == {1}


@pytest.mark.parametrize("num_host_blocks", [0, 40])
def test_only_preemption_makes_a_gap(num_host_blocks: int) -> None:
    rng = random.Random(5)
    fake = FakeEngine(
        num_blocks=40, max_num_seqs=8, max_num_batched_tokens=24, num_host_blocks=num_host_blocks
    )
    watch = GapWatch(fake)
    for number in range(40):
        watch.submit(str(number), prompt_of(rng, rng.choice([3, 10, 60])), random_params(rng))
        watch.step()
    while fake.engine.has_work:
        watch.step()
    assert watch.gaps_of_preempted, "the pool was too large to make anybody give way"
    assert max(watch.gaps_of_preempted) > 1
    assert set(watch.gaps) == {1}


def test_a_full_house_of_decodes_still_all_decode_when_a_long_prompt_waits() -> None:
    """The tightest case: as many sequences as a step has tokens."""
    rng = random.Random(1)
    fake = FakeEngine(num_blocks=500, max_num_seqs=8, max_num_batched_tokens=8)
    watch = GapWatch(fake)
    for number in range(8):
        watch.submit(
            str(number), prompt_of(rng, 2), SamplingParams(max_tokens=30, ignore_eos=True, seed=number)
        )
    watch.step()
    watch.step()
    watch.submit("long", prompt_of(rng, 300), SamplingParams(max_tokens=2, ignore_eos=True))
    while fake.engine.has_work:
        watch.step()
    assert set(watch.gaps) == {1}
    assert len(fake.outputs["long", 0].token_ids) == 2
