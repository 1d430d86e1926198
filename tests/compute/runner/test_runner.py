"""ModelRunner: plans in, tokens out; against plain forward passes over the same model."""

from __future__ import annotations

import random

import pytest
import torch

from octavo.compute.runner.runner import PROMPT_LOGPROB_ROWS, ModelRunner
from octavo.sampling_params import SamplingParams
from octavo.step import BlockCopy, SampleRequest, SequenceSlice, StepPlan
from tests.paged_model import PagedModel, make_kv_storage, make_spec, random_decoder

BLOCK_SIZE = 4


def greedy(position: int, **wishes: int) -> SampleRequest:
    return SampleRequest(SamplingParams(temperature=0.0, **wishes), seed=0, position=position)


@pytest.fixture
def runner() -> ModelRunner:
    decoder = random_decoder()
    return ModelRunner(decoder, make_kv_storage(decoder, 80, BLOCK_SIZE))


def prompt_of(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(make_spec().vocab_size) for _ in range(length)]


def reference_logits(token_ids: list[int]) -> torch.Tensor:
    return PagedModel(random_decoder()).feed({0: token_ids})[0]


def greedy_continuation(prompt: list[int], num_tokens: int) -> list[int]:
    token_ids = list(prompt)
    for _ in range(num_tokens):
        token_ids.append(int(reference_logits(token_ids)[-1].argmax()))
    return token_ids[len(prompt) :]


def decode(
    runner: ModelRunner, blocks: dict[int, list[int]], token_ids: dict[int, list[int]], num_steps: int
) -> None:
    """Decode greedily, all sequences in each step; appends to `token_ids`."""
    for step in range(num_steps):
        slices = [
            SequenceSlice(i, tokens[-1:], len(tokens) - 1, blocks[i], greedy(len(tokens)))
            for i, tokens in token_ids.items()
        ]
        result = runner.run(StepPlan(step, slices))
        assert result.step_id == step
        assert result.failures == {}
        for i, tokens in token_ids.items():
            tokens.append(result.tokens[i].token_id)


def test_greedy_tokens_of_a_mixed_batch(runner: ModelRunner) -> None:
    prompts = {0: prompt_of(11, 1), 1: prompt_of(3, 2), 2: prompt_of(6, 3)}
    blocks = {0: list(range(79, 69, -1)), 1: list(range(0, 20, 2)), 2: list(range(1, 21, 2))}
    # Sequence 0 is prefilled in two chunks while the others already decode.
    first = runner.run(
        StepPlan(
            0,
            [
                SequenceSlice(0, prompts[0][:7], 0, blocks[0]),
                *(SequenceSlice(i, prompts[i], 0, blocks[i], greedy(len(prompts[i]))) for i in (1, 2)),
            ],
        )
    )
    assert set(first.tokens) == {1, 2}
    token_ids = {i: [*prompts[i], first.tokens[i].token_id] for i in (1, 2)}
    second = runner.run(
        StepPlan(
            1,
            [
                *(
                    SequenceSlice(i, t[-1:], len(t) - 1, blocks[i], greedy(len(t)))
                    for i, t in token_ids.items()
                ),
                SequenceSlice(0, prompts[0][7:], 7, blocks[0], greedy(11)),
            ],
        )
    )
    token_ids[0] = prompts[0][:]
    for i, tokens in token_ids.items():
        tokens.append(second.tokens[i].token_id)
    decode(runner, blocks, token_ids, 6)
    assert second.compute_seconds > 0
    for i, prompt in prompts.items():
        output = token_ids[i][len(prompt) :]
        assert output == greedy_continuation(prompt, len(output))


def test_copied_blocks_diverge_from_their_source(runner: ModelRunner) -> None:
    prompt = prompt_of(6)
    runner.run(StepPlan(0, [SequenceSlice(0, prompt, 0, [9, 3])]))
    # The first block stays shared; the second, half full, is copied before either branch writes.
    blocks = {0: [9, 3, 20, 21], 1: [9, 50, 30, 31]}
    token_ids = {0: [*prompt, 5], 1: [*prompt, 60]}
    result = runner.run(
        StepPlan(
            1,
            [SequenceSlice(i, t[-1:], 6, blocks[i], greedy(7)) for i, t in token_ids.items()],
            [BlockCopy(3, 50)],
        )
    )
    for i, tokens in token_ids.items():
        tokens.append(result.tokens[i].token_id)
    decode(runner, blocks, token_ids, 5)
    for tokens in token_ids.values():
        assert tokens[7:] == greedy_continuation(tokens[:7], 6)


def test_candidates_come_beside_tokens_and_failures(runner: ModelRunner) -> None:
    prompts = {0: prompt_of(5, 1), 1: prompt_of(7, 2), 2: prompt_of(3, 3)}
    beams = SamplingParams(use_beam_search=True, best_of=4)
    samples = {
        0: SampleRequest(beams, 0, 5, num_candidates=8),
        1: greedy(7),
        2: SampleRequest(beams, 0, 3, suppressed_token_ids=(-1,), num_candidates=8),
    }
    slices = [
        SequenceSlice(i, prompts[i], 0, list(range(4 * i, 4 * i + 4)), sample)
        for i, sample in samples.items()
    ]
    result = runner.run(StepPlan(0, slices))
    assert (set(result.candidates), set(result.tokens), set(result.failures)) == ({0}, {1}, {2})
    expected = reference_logits(prompts[0])[-1].log_softmax(dim=-1).topk(8)
    assert [one.token_id for one in result.candidates[0]] == expected.indices.tolist()
    assert [one.score for one in result.candidates[0]] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_prompt_logprobs_chunk_by_chunk(runner: ModelRunner) -> None:
    prompt = prompt_of(PROMPT_LOGPROB_ROWS + 40)
    blocks = list(range(60))
    border = PROMPT_LOGPROB_ROWS + 10
    first = SequenceSlice(
        3, prompt[:border], 0, blocks, prompt_logprob_targets=prompt[1 : border + 1], num_prompt_logprobs=2
    )
    second = SequenceSlice(
        3,
        prompt[border:],
        border,
        blocks,
        greedy(len(prompt)),
        prompt_logprob_targets=prompt[border + 1 :],
        num_prompt_logprobs=2,
    )
    bystander = SequenceSlice(4, prompt_of(5), 0, list(range(60, 64)), greedy(5))
    entries = runner.run(StepPlan(0, [bystander, first])).prompt_logprobs[3]
    result = runner.run(StepPlan(1, [second]))
    entries += result.prompt_logprobs[3]
    logprobs = reference_logits(prompt).log_softmax(dim=-1)
    assert [entry.token_id for entry in entries] == prompt[1:]
    for row, entry in enumerate(entries):
        top = logprobs[row].topk(2)
        assert entry.logprob == pytest.approx(logprobs[row, entry.token_id].item(), abs=1e-4)
        assert entry.rank == 1 + int((logprobs[row] > logprobs[row, entry.token_id]).sum())
        assert list(entry.top_token_ids) == top.indices.tolist()
        assert entry.top_logprobs == pytest.approx(top.values.tolist(), abs=1e-4)
    assert result.tokens[3].token_id == int(logprobs[-1].argmax())


def test_nothing_that_was_not_asked_for(runner: ModelRunner) -> None:
    result = runner.run(StepPlan(0, [SequenceSlice(0, prompt_of(5), 0, [1, 2], greedy(5))]))
    assert result.prompt_logprobs == {}
    assert result.tokens[0].logprobs is None
    result = runner.run(StepPlan(1, [SequenceSlice(0, prompt_of(5), 0, [1, 2])]))
    assert result.tokens == {}


def test_sampled_logprobs(runner: ModelRunner) -> None:
    prompt = prompt_of(9)
    piece = SequenceSlice(0, prompt, 0, [4, 5, 6], greedy(9, logprobs=3))
    token = runner.run(StepPlan(0, [piece])).tokens[0]
    logprobs = reference_logits(prompt)[-1].log_softmax(dim=-1)
    assert token.logprobs is not None
    assert token.logprobs.rank == 1
    assert token.logprobs.logprob == pytest.approx(logprobs.max().item(), abs=1e-4)
    assert list(token.logprobs.top_token_ids) == logprobs.topk(3).indices.tolist()


def test_a_sequence_that_is_not_finite_fails_alone(runner: ModelRunner) -> None:
    good, broken = prompt_of(7, 1), prompt_of(3, 2)
    # Its earlier positions were never written, so its cache holds NaN there.
    sampled = SequenceSlice(5, broken, 4, [30, 31], greedy(7))
    scored = SequenceSlice(
        6, broken, 4, [40, 41], greedy(7), prompt_logprob_targets=broken[1:], num_prompt_logprobs=1
    )
    plan = StepPlan(0, [sampled, SequenceSlice(2, good, 0, [7, 8], greedy(7)), scored])
    result = runner.run(plan)
    assert set(result.failures) == {5, 6}
    for line in result.failures.values():
        assert "not finite" in line
        assert "\n" not in line
    assert result.prompt_logprobs == {}
    assert {i: token.token_id for i, token in result.tokens.items()} == {2: greedy_continuation(good, 1)[0]}


def test_a_plan_that_reaches_outside_leaves_the_runner_usable(runner: ModelRunner) -> None:
    prompt = prompt_of(5)
    with pytest.raises(ValueError, match="block id 80"):
        runner.run(StepPlan(0, [SequenceSlice(0, prompt, 0, [1, 80], greedy(5))]))
    result = runner.run(StepPlan(1, [SequenceSlice(0, prompt, 0, [1, 2], greedy(5))]))
    assert result.tokens[0].token_id == greedy_continuation(prompt, 1)[0]


def test_a_plan_of_copies_alone(runner: ModelRunner) -> None:
    prompt = prompt_of(4)
    runner.run(StepPlan(0, [SequenceSlice(0, prompt, 0, [1])]))
    assert runner.run(StepPlan(1, [], [BlockCopy(1, 2)])).tokens == {}
    result = runner.run(StepPlan(2, [SequenceSlice(0, [9], 4, [2, 3], greedy(5))]))
    assert result.tokens[0].token_id == greedy_continuation([*prompt, 9], 1)[0]
