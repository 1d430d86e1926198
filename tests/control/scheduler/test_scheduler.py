"""What a step holds: chunks, the budget, order, preemption, forks. Run through the real engine."""

from __future__ import annotations

import random
import statistics
import time

import pytest

from octavo.control.cache.block_manager import BlockManager
from octavo.control.scheduler.scheduler import Scheduler
from octavo.errors import ConfigError
from octavo.request import FinishReason, SequenceStatus
from octavo.sampling_params import SamplingParams
from octavo.step import BlockCopy
from tests.control.fake_engine import EOS_TOKEN_ID, VOCAB_SIZE, FakeEngine
from tests.fake_executor import reference_output


def params(max_tokens: int, **fields: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=7, **fields)  # type: ignore[arg-type]


def expected(prompt: list[int], wanted: SamplingParams, index: int = 0) -> list[int]:
    assert wanted.max_tokens is not None
    return reference_output(
        prompt,
        wanted,
        max_tokens=wanted.max_tokens,
        index=index,
        vocab_size=VOCAB_SIZE,
        eos_token_ids=(EOS_TOKEN_ID,),
    )


def prompt_of(length: int, salt: int = 1) -> list[int]:
    return [(salt * 31 + position * 7) % VOCAB_SIZE for position in range(length)]


def slice_lengths(fake: FakeEngine) -> list[list[int]]:
    return [[len(piece.token_ids) for piece in plan.slices] for plan in fake.plans]


def test_a_long_prompt_is_prefilled_in_chunks_of_the_budget():
    fake = FakeEngine(max_num_seqs=8, max_num_batched_tokens=16)
    fake.engine.submit("a", prompt_of(40), params(3))
    outputs = fake.run()
    assert slice_lengths(fake) == [[16], [16], [8], [1], [1]]
    assert [plan.slices[0].sample is not None for plan in fake.plans] == [False, False, True, True, True]
    assert outputs["a", 0].token_ids == expected(prompt_of(40), params(3))


def test_decodes_come_first_then_chunks_fill_what_budget_remains():
    fake = FakeEngine(max_num_seqs=8, max_num_batched_tokens=16)
    fake.engine.submit("a", prompt_of(4), params(20))
    fake.engine.submit("b", prompt_of(4, salt=2), params(20))
    fake.step()
    fake.engine.submit("c", prompt_of(30, salt=3), params(2))
    fake.engine.submit("d", prompt_of(3, salt=4), params(2))
    for _ in range(3):
        fake.step()
    assert slice_lengths(fake) == [[4, 4], [1, 1, 14], [1, 1, 14], [1, 1, 2, 3]]
    trace = fake.traces[3]
    assert (trace.num_decode_tokens, trace.num_prefill_tokens) == (2, 5)


def test_a_request_joins_the_step_after_it_arrives_and_leaves_in_the_step_it_ends():
    fake = FakeEngine()
    fake.engine.submit("a", prompt_of(4), params(10))
    fake.step()
    fake.engine.submit("b", prompt_of(5, salt=2), params(2))
    deltas = fake.step()
    assert {delta.request_id for delta in deltas} == {"a", "b"}
    fake.step()
    assert fake.outputs["b", 0].finish_reason is FinishReason.LENGTH
    assert fake.engine.num_running == 1
    assert fake.cache.num_used_blocks == 2, "only a's blocks are left"


def test_waiting_requests_are_admitted_in_order_and_none_is_skipped():
    fake = FakeEngine(max_num_seqs=2, max_num_batched_tokens=64)
    for name in "abcde":
        fake.engine.submit(name, prompt_of(4), params(3))
    started: list[str] = []
    while fake.engine.has_work:
        for delta in fake.step():
            if delta.request_id not in started:
                started.append(delta.request_id)
        assert fake.engine.num_running <= 2
    assert started == list("abcde")


def test_a_big_request_at_the_head_of_the_queue_is_not_overtaken():
    fake = FakeEngine(num_blocks=10, block_size=4, max_num_batched_tokens=64)
    fake.engine.submit("a", prompt_of(16), params(8))
    fake.step()
    fake.engine.submit("big", prompt_of(32), params(2))
    fake.engine.submit("small", prompt_of(2), params(2))
    fake.step()
    assert [piece.sequence_id for piece in fake.plans[-1].slices] == [0]
    assert fake.engine.num_waiting == 2
    fake.run()


def test_the_last_to_come_is_preempted_and_its_tokens_stay_the_same():
    prompts = {name: prompt_of(6, salt=salt) for salt, name in enumerate("abc")}
    fake = FakeEngine(num_blocks=14, block_size=2, max_num_batched_tokens=64)
    requests = {name: fake.engine.submit(name, prompt, params(12)) for name, prompt in prompts.items()}
    preempted = []
    while fake.engine.has_work:
        fake.step()
        preempted += [
            name for name in "abc" if requests[name].sequences[0].status is SequenceStatus.PREEMPTED
        ]
    assert preempted and set(preempted) <= {"b", "c"}, "the first to come never gives way"
    assert sum(trace.num_preemptions for trace in fake.traces) == sum(
        request.sequences[0].num_preemptions for request in requests.values()
    )
    for name, prompt in prompts.items():
        assert fake.outputs[name, 0].token_ids == expected(prompt, params(12))


def test_a_preempted_sequence_comes_back_before_those_that_came_after_it():
    fake = FakeEngine(max_num_seqs=2)
    first = fake.engine.submit("a", prompt_of(4), params(4)).sequences[0]
    second = fake.engine.submit("b", prompt_of(4), params(9)).sequences[0]
    fake.engine.submit("c", prompt_of(4), params(4))
    fake.step()
    fake.scheduler.roster.preempt(second)
    assert (second.status, second.num_computed_tokens, second.num_preemptions) == (
        SequenceStatus.PREEMPTED,
        0,
        1,
    )
    fake.step()
    assert [piece.sequence_id for piece in fake.plans[-1].slices] == [
        first.sequence_id,
        second.sequence_id,
    ]
    assert len(fake.plans[-1].slices[1].token_ids) == 5, "prompt and output so far are one prefill"
    fake.run()


@pytest.mark.parametrize("seed", range(6))
def test_after_an_admission_nobody_is_preempted_for_a_blocks_length_of_steps(seed):
    rng = random.Random(seed)
    block_size = rng.choice([2, 4, 8])
    fake = FakeEngine(num_blocks=40, block_size=block_size, max_num_seqs=16, max_num_batched_tokens=24)
    for number in range(40):
        prompt = prompt_of(rng.randint(1, 10 * block_size), salt=number)
        fake.engine.submit(str(number), prompt, params(rng.randint(1, 12 * block_size)))
    known: set[int] = set()
    last_admission = -block_size
    num_preemptions = 0
    for step in range(10_000):
        if not fake.engine.has_work:
            break
        fake.step()
        running = {piece.sequence_id for piece in fake.plans[-1].slices}
        if fake.traces[-1].num_preemptions:
            num_preemptions += fake.traces[-1].num_preemptions
            assert step - last_admission >= block_size
        if any(
            piece.start_position == 0 and piece.sequence_id not in known for piece in fake.plans[-1].slices
        ):
            last_admission = step
        known = running
    assert num_preemptions > 0, "the pool was too large to test anything"
    assert not fake.engine.has_work


def test_continuations_share_the_prompt_and_copy_only_its_last_block():
    fake = FakeEngine(block_size=4)
    prompt = prompt_of(10)
    fake.engine.submit("a", prompt, params(6, n=3))
    fake.step()
    assert (fake.engine.num_running, fake.engine.num_waiting) == (1, 2)
    fake.step()
    plan = fake.plans[-1]
    assert [len(piece.token_ids) for piece in plan.slices] == [1, 1, 1]
    assert [piece.start_position for piece in plan.slices] == [10, 9, 9]
    leader, *others = plan.slices
    for piece in others:
        assert piece.block_ids[:2] == leader.block_ids[:2]
        assert BlockCopy(leader.block_ids[2], piece.block_ids[2]) in plan.block_copies
    assert fake.traces[-1].blocks_used == 2 + 3
    outputs = fake.run()
    assert fake.executor.num_tokens_computed == 10 + 5 + 2 * 6, "the prompt is computed once"
    for index in range(3):
        assert outputs["a", index].token_ids == expected(prompt, params(6), index)


def test_a_leader_that_ends_at_once_leaves_its_prompt_to_the_others():
    fake = FakeEngine()
    prompt = prompt_of(10)
    fake.engine.submit("a", prompt, params(1, n=4))
    outputs = fake.run()
    assert fake.executor.num_tokens_computed == 10 + 3
    assert len(fake.plans) == 2
    for index in range(4):
        assert outputs["a", index].token_ids == expected(prompt, params(1), index)


@pytest.mark.parametrize("steps_before", [0, 1, 2, 3])
@pytest.mark.parametrize("prompt_length", [9, 12, 13])
def test_the_others_live_on_when_the_leader_is_aborted(steps_before, prompt_length):
    fake = FakeEngine(max_num_seqs=8, max_num_batched_tokens=8)
    prompt = prompt_of(prompt_length)
    fake.engine.submit("a", prompt, params(5, n=3))
    for _ in range(steps_before):
        fake.step()
    fake.engine.abort("a", 0)
    outputs = fake.run()
    assert outputs["a", 0].finish_reason is FinishReason.ABORT
    for index in (1, 2):
        assert outputs["a", index].token_ids == expected(prompt, params(5), index)


def test_a_plans_copies_never_build_on_each_other():
    """A sibling that has just forked is no donor: its last block is itself still to be copied."""
    fake = FakeEngine(max_num_seqs=3, block_size=4)
    prompt = prompt_of(10)
    sequences = fake.engine.submit("a", prompt, params(9, n=4)).sequences
    fake.step()
    fake.step()
    assert [one.status for one in sequences[:3]] == [SequenceStatus.RUNNING] * 3
    fake.engine.abort("a", 0)
    fake.scheduler.roster.preempt(sequences[1])
    fake.step()  # 1 forks from 2, and so must 3; the fake executor refuses chains
    plan = fake.plans[-1]
    assert [piece.sequence_id for piece in plan.slices] == [2, 1, 3]
    assert {copy.source_block_id for copy in plan.block_copies} == {plan.slices[0].block_ids[2]}
    outputs = fake.run()
    for index in (1, 2, 3):
        assert outputs["a", index].token_ids == expected(prompt, params(9), index)


def test_prompt_logprobs_are_gathered_once_across_a_preemption():
    fake = FakeEngine(max_num_seqs=4, max_num_batched_tokens=8)
    prompt = prompt_of(30)
    sequence = fake.engine.submit("a", prompt, params(3, prompt_logprobs=1)).sequences[0]
    fake.step()
    fake.step()
    fake.scheduler.roster.preempt(sequence)
    outputs = fake.run()
    targets = [token for plan in fake.plans for token in plan.slices[0].prompt_logprob_targets]
    assert targets == prompt[1:]
    first, *rest = outputs["a", 0].deltas
    assert first.prompt_logprobs is not None
    assert [entry.token_id for entry in first.prompt_logprobs] == prompt[1:]
    assert all(delta.prompt_logprobs is None for delta in rest)
    assert outputs["a", 0].token_ids == expected(prompt, params(3))


class FaultyCache(BlockManager):
    """Breaks for one sequence."""

    def append_token(self, sequence_id: int) -> list[int] | None:
        return None if sequence_id == 1 else super().append_token(sequence_id)

    def append_slots(self, sequence_id: int, num_tokens: int) -> list[BlockCopy]:
        if sequence_id == 1 and num_tokens == 1:
            raise KeyError("lost")
        return super().append_slots(sequence_id, num_tokens)


def test_a_request_that_cannot_be_scheduled_disturbs_nobody():
    fake = FakeEngine(cache=FaultyCache(100, 4))
    for name in "abc":
        fake.engine.submit(name, prompt_of(5), params(4))
    outputs = fake.run()
    assert outputs["b", 0].finish_reason is FinishReason.ERROR
    assert outputs["b", 0].error == "could not be scheduled: KeyError: 'lost'"
    for name in "ac":
        assert outputs[name, 0].token_ids == expected(prompt_of(5), params(4))


def test_more_sequences_than_tokens_a_step_are_refused():
    with pytest.raises(
        ConfigError, match=r"max_num_seqs \(9\) must be from 1 to max_num_batched_tokens \(8\)"
    ):
        Scheduler(BlockManager(4, 4), max_num_seqs=9, max_num_batched_tokens=8)


def mixed_workload(seed: int) -> list[tuple[int, int]]:
    """Prompt and output lengths: exponential with mean 128, prompts to 1024, outputs 4 to 512."""
    rng = random.Random(seed)
    return [
        (
            min(max(round(rng.expovariate(1 / 128)), 4), 1024),
            min(max(round(rng.expovariate(1 / 128)), 4), 512),
        )
        for _ in range(64)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_waste_stays_below_four_percent_on_the_mixed_workload(seed):
    fake = FakeEngine(num_blocks=2500, block_size=16, max_num_batched_tokens=512, max_model_len=8192)
    for number, (prompt_length, output_length) in enumerate(mixed_workload(seed)):
        fake.engine.submit(str(number), prompt_of(prompt_length, salt=number), params(output_length))
    while fake.engine.has_work:
        fake.engine.step()
        fake.traces.append(fake.engine.last_step)
    waste = [trace.waste for trace in fake.traces if trace.used_slots]
    assert max(trace.num_running for trace in fake.traces) > 50
    assert 0 < statistics.mean(waste) < 0.04


def test_planning_a_full_batch_of_decodes_is_cheap():
    fake = FakeEngine(num_blocks=4000, block_size=16, max_num_seqs=256, max_num_batched_tokens=512)
    for number in range(256):
        fake.engine.submit(str(number), prompt_of(4, salt=number), params(40))
    for _ in range(10):
        fake.engine.step()
    seconds = []
    for _ in range(25):
        started = time.thread_time()  # CPU time: what else the machine does must not count
        draft = fake.scheduler.plan_step()
        seconds.append(time.thread_time() - started)
        assert len(draft.slices) == 256
        result_of(fake, draft)
    assert statistics.median(seconds) < 0.004  # about 1 ms on a desktop core; room for slow machines


def result_of(fake: FakeEngine, draft) -> None:  # type: ignore[no-untyped-def]
    """Apply a plan as the engine would."""
    fake.executor.submit(draft.plan)
    fake.engine._apply(draft, fake.executor.collect(), [])
