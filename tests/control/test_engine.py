"""The loop: what requests get back, how they end, and what happens when something breaks."""

from __future__ import annotations

import pytest

from octavo.errors import ContextLengthError, EngineUnavailableError, OverloadedError, RequestError
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams
from octavo.step import SequenceSlice, StepPlan, StepResult
from tests.control.fake_engine import EOS_TOKEN_ID, VOCAB_SIZE, FakeEngine, RecordingExecutor
from tests.fake_executor import FakeExecutor, FaultyExecutor, reference_output

PROMPT = [11, 12, 13, 14, 15]


def alone(prompt: list[int], params: SamplingParams, max_tokens: int, index: int = 0) -> list[int]:
    return reference_output(
        prompt,
        params,
        max_tokens=max_tokens,
        index=index,
        vocab_size=VOCAB_SIZE,
        eos_token_ids=(EOS_TOKEN_ID,),
    )


class ScriptedExecutor(RecordingExecutor):
    """Samples the tokens of a script, one list a sequence; otherwise as the fake one."""

    def __init__(self, scripts: dict[int, list[int]]) -> None:
        super().__init__(num_blocks=100, block_size=4, vocab_size=VOCAB_SIZE)
        self.scripts = scripts

    def collect(self) -> StepResult:
        result = super().collect()
        for sequence_id, token in result.tokens.items():
            if script := self.scripts.get(sequence_id):
                result.tokens[sequence_id] = type(token)(script.pop(0), token.logprobs)
        return result


def run_script(script: list[int], params: SamplingParams) -> FakeEngine:
    fake = FakeEngine(executor=ScriptedExecutor({0: list(script)}))
    fake.engine.submit("a", PROMPT, params)
    fake.run()
    return fake


@pytest.mark.parametrize(
    ("script", "params", "token_ids", "reason", "stop_reason"),
    [
        ([5, 6, 7], SamplingParams(max_tokens=3), [5, 6, 7], FinishReason.LENGTH, None),
        ([5, 0, 7], SamplingParams(max_tokens=3), [5, 0], FinishReason.STOP, None),
        ([5, 0, 7], SamplingParams(max_tokens=3, ignore_eos=True), [5, 0, 7], FinishReason.LENGTH, None),
        ([5, 9, 7], SamplingParams(max_tokens=3, stop_token_ids=[8, 9]), [5, 9], FinishReason.STOP, 9),
        ([5, 0], SamplingParams(stop_token_ids=[0], ignore_eos=True), [5, 0], FinishReason.STOP, 0),
        ([5, 0], SamplingParams(stop_token_ids=[0]), [5, 0], FinishReason.STOP, None),
        ([5, 6, 0], SamplingParams(max_tokens=3), [5, 6, 0], FinishReason.STOP, None),
    ],
)
def test_how_outputs_end(script, params, token_ids, reason, stop_reason):
    output = run_script(script, params).outputs["a", 0]
    assert output.token_ids == token_ids
    assert (output.finish_reason, output.deltas[-1].stop_reason) == (reason, stop_reason)


def test_each_step_brings_each_running_sequence_one_token():
    fake = FakeEngine()
    params = SamplingParams(max_tokens=4, seed=3, ignore_eos=True, logprobs=2)
    fake.engine.submit("a", PROMPT, params)
    output = fake.run()["a", 0]
    assert [len(delta.token_ids) for delta in output.deltas] == [1, 1, 1, 1]
    assert output.token_ids == alone(PROMPT, params, 4)
    for delta in output.deltas:
        assert delta.logprobs is not None
        assert delta.logprobs[0].token_id == delta.token_ids[0]


def test_ends_are_suppressed_until_min_tokens():
    fake = FakeEngine()
    fake.engine.submit("a", PROMPT, SamplingParams(max_tokens=5, min_tokens=2, stop_token_ids=[7]))
    fake.engine.submit(
        "b", PROMPT, SamplingParams(max_tokens=5, min_tokens=2, stop_token_ids=[7], ignore_eos=True)
    )
    fake.run()
    suppressed = [
        [piece.sample.suppressed_token_ids for piece in plan.slices if piece.sample] for plan in fake.plans
    ]
    assert suppressed[0] == suppressed[1] == [(0, 7), (7,)], "an ignored EOS may be sampled at any time"
    assert all(ids == () for step in suppressed[2:] for ids in step)


def test_histories_travel_only_where_sampling_needs_them():
    fake = FakeEngine()
    fake.engine.submit("a", PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
    fake.engine.submit("b", PROMPT, SamplingParams(max_tokens=3, ignore_eos=True, presence_penalty=1.0))
    fake.engine.submit(
        "c",
        PROMPT,
        SamplingParams(max_tokens=3, ignore_eos=True, bad_words=["x"]),
        bad_words_token_ids=[[4, 5]],
    )
    fake.run()
    plain, penalised, banned = [piece.sample for piece in fake.plans[2].slices]
    assert plain is not None and penalised is not None and banned is not None
    assert not plain.prompt_token_ids and not plain.output_token_ids
    assert penalised.prompt_token_ids == PROMPT
    assert penalised.output_token_ids == fake.outputs["b", 0].token_ids[:2]
    assert banned.bad_words_token_ids == ((4, 5),)
    assert banned.output_token_ids == fake.outputs["c", 0].token_ids[:2]


def test_nothing_to_generate_still_computes_the_prompt():
    fake = FakeEngine(max_num_seqs=2, max_num_batched_tokens=4)
    fake.engine.submit("a", PROMPT, SamplingParams(max_tokens=0, prompt_logprobs=0, n=2))
    outputs = fake.run()
    for index in (0, 1):
        (delta,) = outputs["a", index].deltas
        assert (delta.token_ids, delta.finish_reason) == ((), FinishReason.LENGTH)
        assert delta.prompt_logprobs is not None
        assert [entry.token_id for entry in delta.prompt_logprobs] == PROMPT[1:]
    assert all(piece.sample is None for plan in fake.plans for piece in plan.slices)


def test_prompt_logprobs_of_one_token_are_empty_not_missing():
    fake = FakeEngine()
    fake.engine.submit("a", [5], SamplingParams(max_tokens=1, prompt_logprobs=1))
    assert fake.run()["a", 0].deltas[0].prompt_logprobs == ()


def test_seeds_make_outputs_and_differ_by_index():
    fake = FakeEngine()
    params = SamplingParams(max_tokens=6, seed=-9, n=3, ignore_eos=True)
    fake.engine.submit("a", PROMPT, params)
    outputs = fake.run()
    assert [outputs["a", index].token_ids for index in range(3)] == [
        alone(PROMPT, params, 6, index) for index in range(3)
    ]


def test_the_engines_seed_repeats_requests_that_have_none():
    def seeds(engine_seed: int | None) -> list[int]:
        engine = FakeEngine(seed=engine_seed).engine
        return [engine.submit(str(number), PROMPT, SamplingParams()).seed for number in range(4)]

    assert seeds(5) == seeds(5)
    assert seeds(5) != seeds(6)
    assert seeds(None) != seeds(None)
    assert len(set(seeds(5))) == 4
    assert all(0 <= seed < 2**62 for seed in seeds(None))


def test_what_submit_refuses():
    fake = FakeEngine(max_model_len=32, max_queued_requests=2, max_num_seqs=1)
    fake.engine.submit("a", PROMPT, SamplingParams())
    with pytest.raises(RequestError, match="'a' is still running"):
        fake.engine.submit("a", PROMPT, SamplingParams())
    with pytest.raises(RequestError, match="prompt"):
        fake.engine.submit("b", [VOCAB_SIZE], SamplingParams())
    with pytest.raises(ContextLengthError, match="context is 32"):
        fake.engine.submit("b", PROMPT, SamplingParams(max_tokens=28))
    fake.step()
    fake.engine.submit("b", PROMPT, SamplingParams())
    fake.engine.submit("c", PROMPT, SamplingParams(n=3))
    with pytest.raises(OverloadedError, match="2 requests are waiting") as caught:
        fake.engine.submit("d", PROMPT, SamplingParams())
    assert caught.value.retry_after_seconds > 0
    fake.engine.abort("b")
    fake.engine.submit("d", PROMPT, SamplingParams())
    fake.run()
    assert {request_id for request_id, _ in fake.outputs} == {"a", "b", "c", "d"}
    fake.engine.submit("a", PROMPT, SamplingParams())  # the id is free again


def test_the_callers_prompt_is_copied():
    fake = FakeEngine()
    prompt = list(PROMPT)
    params = SamplingParams(max_tokens=4, seed=1, ignore_eos=True)
    fake.engine.submit("a", prompt, params)
    prompt.append(99)
    assert fake.run()["a", 0].token_ids == alone(PROMPT, params, 4)


def test_an_abort_frees_the_blocks_at_once_and_says_so_in_the_next_step():
    fake = FakeEngine()
    fake.engine.submit("a", PROMPT, SamplingParams(n=2, max_tokens=50, ignore_eos=True))
    fake.engine.submit("b", PROMPT, SamplingParams(max_tokens=50, ignore_eos=True))
    for _ in range(3):
        fake.step()
    before = fake.cache.num_used_blocks
    fake.engine.abort("a")
    assert fake.cache.num_used_blocks < before
    assert fake.engine.num_running == 1
    deltas = fake.step()
    assert [(delta.request_id, delta.finish_reason) for delta in deltas] == [
        ("a", FinishReason.ABORT),
        ("a", FinishReason.ABORT),
        ("b", None),
    ]
    fake.engine.abort("a")
    fake.engine.abort("never heard of")
    fake.engine.abort("b", 5)
    assert [delta.request_id for delta in fake.step()] == ["b"]


def test_aborting_one_sequence_leaves_the_others():
    fake = FakeEngine()
    params = SamplingParams(n=3, max_tokens=8, seed=2, ignore_eos=True)
    fake.engine.submit("a", PROMPT, params)
    for _ in range(3):
        fake.step()
    fake.engine.abort("a", 1)
    outputs = fake.run()
    assert outputs["a", 1].finish_reason is FinishReason.ABORT
    for index in (0, 2):
        assert outputs["a", index].token_ids == alone(PROMPT, params, 8, index)


def test_an_aborted_request_that_never_ran_leaves_nothing_behind():
    fake = FakeEngine(max_num_seqs=1)
    fake.engine.submit("a", PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
    fake.engine.submit("b", PROMPT, SamplingParams(n=4))
    fake.engine.abort("b")
    assert fake.engine.num_waiting == 1
    outputs = fake.run()
    assert all(outputs["b", index].finish_reason is FinishReason.ABORT for index in range(4))
    assert len(outputs["a", 0].token_ids) == 3


# -- faults


def test_a_slice_that_breaks_on_its_own_ends_its_request_only():
    class Nan(RecordingExecutor):
        def collect(self) -> StepResult:
            result = super().collect()
            if 1 in result.tokens and len(self.plans) == 3:
                del result.tokens[1]
                result.failures[1] = "the logits are not finite"
            return result

    fake = FakeEngine(executor=Nan(100, 4, VOCAB_SIZE))
    params = SamplingParams(max_tokens=6, seed=4, ignore_eos=True)
    for name in "abc":
        fake.engine.submit(name, PROMPT, params)
    outputs = fake.run()
    assert outputs["b", 0].finish_reason is FinishReason.ERROR
    assert outputs["b", 0].error == "the logits are not finite"
    assert outputs["b", 0].token_ids == alone(PROMPT, params, 6)[:2]
    for name in "ac":
        assert outputs[name, 0].token_ids == alone(PROMPT, params, 6)


@pytest.mark.parametrize("num_culprits", [1, 2])
def test_a_pass_that_breaks_is_bisected_until_the_culprit_stands_alone(num_culprits):
    culprits = {2, 5} if num_culprits == 2 else {5}

    def is_fatal(piece: SequenceSlice) -> bool:
        return piece.sequence_id in culprits and piece.start_position >= 7

    fake = FakeEngine(executor=FaultyExecutor(100, 4, VOCAB_SIZE, is_fatal))
    params = SamplingParams(max_tokens=6, seed=4, ignore_eos=True)
    for number in range(9):
        fake.engine.submit(str(number), [number, *PROMPT], params)
    outputs = fake.run()
    for number in range(9):
        output = outputs[str(number), 0]
        tokens = alone([number, *PROMPT], params, 6)
        if number in culprits:
            assert output.finish_reason is FinishReason.ERROR
            assert output.error == "internal error while computing this request (RuntimeError)"
            assert output.token_ids == tokens[:2]
        else:
            assert output.token_ids == tokens


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_bisection_keeps_copy_on_write_right(victim):
    """Forks are copied in the step that breaks; the retry must copy again, and only what it needs."""

    def is_fatal(piece: SequenceSlice) -> bool:
        return piece.sequence_id == victim and piece.start_position >= len(PROMPT) - 1 + (victim == 0)

    fake = FakeEngine(executor=FaultyExecutor(100, 4, VOCAB_SIZE, is_fatal))
    params = SamplingParams(max_tokens=6, seed=4, ignore_eos=True, n=4)
    fake.engine.submit("a", [*PROMPT, 3], params)
    outputs = fake.run()
    for index in range(4):
        if index == victim:
            assert outputs["a", index].finish_reason is FinishReason.ERROR
        else:
            assert outputs["a", index].token_ids == alone([*PROMPT, 3], params, 6, index)


def test_nobody_inherits_the_blocks_of_a_sequence_that_broke():
    def is_fatal(piece: SequenceSlice) -> bool:
        return piece.sequence_id == 0 and piece.start_position >= 7

    executor = FaultyExecutor(100, 4, VOCAB_SIZE, is_fatal)
    fake = FakeEngine(executor=executor, max_num_seqs=1)
    params = SamplingParams(max_tokens=6, seed=4, ignore_eos=True, n=2)
    fake.engine.submit("a", PROMPT, params)
    while not fake.outputs["a", 0].deltas or fake.outputs["a", 0].finish_reason is None:
        fake.step()
    computed_before = executor.num_tokens_computed
    fake.step()
    assert executor.num_tokens_computed - computed_before == len(PROMPT), "the prompt is computed anew"
    assert fake.run()["a", 1].token_ids == alone(PROMPT, params, 6, 1)


def test_when_every_slice_breaks_every_request_ends_and_the_engine_goes_on():
    broken = True
    fake = FakeEngine(executor=FaultyExecutor(100, 4, VOCAB_SIZE, lambda piece: broken))
    params = SamplingParams(max_tokens=3, seed=4, ignore_eos=True)
    fake.engine.submit("a", PROMPT, params)
    fake.engine.submit("b", PROMPT, SamplingParams(n=3, max_tokens=3))
    outputs = fake.run()
    assert all(output.finish_reason is FinishReason.ERROR for output in outputs.values())
    assert len(outputs) == 4
    assert (fake.engine.num_running, fake.engine.num_waiting, fake.cache.num_used_blocks) == (0, 0, 0)
    broken = False
    fake.engine.submit("c", PROMPT, params)
    assert fake.run()["c", 0].token_ids == alone(PROMPT, params, 3)


def test_a_result_that_lacks_a_token_ends_that_request():
    class Forgetful(FakeExecutor):
        def collect(self) -> StepResult:
            result = super().collect()
            result.tokens.pop(0, None)
            return result

    fake = FakeEngine(executor=Forgetful(100, 4, VOCAB_SIZE))
    for name in "ab":
        fake.engine.submit(name, PROMPT, SamplingParams(max_tokens=2, ignore_eos=True))
    outputs = fake.run()
    assert outputs["a", 0].error == "the executor returned no token for this request"
    assert len(outputs["b", 0].token_ids) == 2


@pytest.mark.parametrize("is_collected_late", [False, True])
def test_an_interrupted_step_loses_no_token(is_collected_late):
    """Ctrl-C in a step: it surfaces, and the requests go on as if nothing had been."""

    class Interrupted(FakeExecutor):
        num_interrupts = 3

        def collect(self) -> StepResult:
            if self.plans_run >= 2 and self.num_interrupts:
                self.num_interrupts -= 1
                if not is_collected_late:
                    super().collect()
                raise KeyboardInterrupt
            return super().collect()

    fake = FakeEngine(executor=Interrupted(100, 4, VOCAB_SIZE))
    params = SamplingParams(max_tokens=6, seed=4, ignore_eos=True, n=2)
    fake.engine.submit("a", PROMPT, params)
    num_interrupts = 0
    while fake.engine.has_work:
        try:
            fake.step()
        except KeyboardInterrupt:
            num_interrupts += 1
    assert num_interrupts == 3
    for index in range(2):
        assert fake.outputs["a", index].token_ids == alone(PROMPT, params, 6, index)


def test_closing_ends_everything_once():
    fake = FakeEngine()
    fake.engine.submit("a", PROMPT, SamplingParams(n=2))
    fake.step()
    fake.engine.close()
    fake.engine.close()
    assert fake.executor.is_closed
    assert fake.cache.num_used_blocks == 0
    assert [delta.finish_reason for delta in fake.engine.step()] == [FinishReason.ABORT] * 2
    assert not fake.engine.has_work
    with pytest.raises(EngineUnavailableError):
        fake.engine.submit("b", PROMPT, SamplingParams())


def test_the_trace_tells_the_state_after_the_step():
    fake = FakeEngine(num_blocks=50, block_size=4)
    assert fake.engine.step() == []
    assert fake.engine.last_step is None
    fake.engine.submit("a", PROMPT, SamplingParams(max_tokens=2, ignore_eos=True))
    fake.step()
    trace = fake.traces[0]
    assert (trace.num_running, trace.num_waiting, trace.num_preemptions) == (1, 0, 0)
    assert (trace.num_prefill_tokens, trace.num_decode_tokens, trace.num_tokens) == (5, 0, 5)
    assert (trace.blocks_used, trace.blocks_free, trace.used_slots, trace.empty_slots) == (2, 48, 5, 3)
    assert trace.waste == 3 / 5
    assert 0 < trace.plan_seconds < trace.step_seconds
    fake.step()
    after = fake.traces[1]
    assert (after.num_decode_tokens, after.blocks_used, after.waste) == (1, 0, 0.0)
    assert after.step_id == trace.step_id + 1


def test_plans_carry_the_table_by_reference_and_cover_their_slots():
    fake = FakeEngine(block_size=4)
    seen: list[StepPlan] = []
    original = fake.executor.submit
    fake.executor.submit = lambda plan: (seen.append(plan), original(plan))[1]  # type: ignore[method-assign]
    fake.engine.submit("a", PROMPT, SamplingParams(max_tokens=6, ignore_eos=True))
    fake.step()
    table = seen[0].slices[0].block_ids
    assert table is fake.cache.block_ids(0)
    fake.run()
