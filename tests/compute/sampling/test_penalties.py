"""Edits of one row, against transformers' processors where the semantics coincide."""

import pytest
import torch
from transformers import NoBadWordsLogitsProcessor, RepetitionPenaltyLogitsProcessor

from octavo.compute.sampling.penalties import completed_bad_words, edit_logits, has_edits
from octavo.sampling_params import SamplingParams
from octavo.step import SampleRequest

VOCAB_SIZE = 300


def random_row(seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))


def edited(row: torch.Tensor, *, prompt=(), output=(), bad_words=(), suppressed=(), **params) -> torch.Tensor:
    request = SampleRequest(
        params=SamplingParams(**params),
        seed=0,
        position=len(prompt) + len(output),
        suppressed_token_ids=tuple(suppressed),
        bad_words_token_ids=tuple(bad_words),
        prompt_token_ids=list(prompt),
        output_token_ids=list(output),
    )
    assert has_edits(request)
    row = row.clone()
    edit_logits(row, request)
    return row


@pytest.mark.parametrize("penalty", [0.5, 1.1, 2.0])
def test_repetition_penalty_is_transformers_over_prompt_and_output(penalty):
    row, prompt, output = random_row(), [5, 9, 9, 200], [7, 5, 299]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + output]), row[None].clone())[
        0
    ]
    result = edited(row, prompt=prompt, output=output, repetition_penalty=penalty)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_presence_and_frequency_count_the_output_alone():
    row = random_row()
    result = edited(row, prompt=[1, 1, 2], output=[3, 3, 3, 4], presence_penalty=0.5, frequency_penalty=0.25)
    expected = row.clone()
    expected[3] -= 3 * 0.25 + 0.5
    expected[4] -= 0.25 + 0.5
    torch.testing.assert_close(result, expected)


def test_repetition_comes_before_frequency_and_presence():
    row = torch.full((VOCAB_SIZE,), 4.0)
    result = edited(row, output=[3, 3], repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=0.5)
    assert result[3] == 4.0 / 2.0 - 2 * 0.5 - 1.0


def test_bias_is_added_before_the_penalties():
    result = edited(torch.zeros(VOCAB_SIZE), output=[3], logit_bias={3: 8.0, 4: -2.0}, repetition_penalty=2.0)
    assert result[3] == 4.0
    assert result[4] == -2.0


def test_penalties_at_their_extremes_leave_the_likeliest_finite():
    row = random_row()
    result = edited(
        row,
        prompt=list(range(VOCAB_SIZE)),
        output=list(range(VOCAB_SIZE)),
        repetition_penalty=1e-300,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        logit_bias={0: 100.0},
    )
    assert torch.isfinite(result.amax())
    assert not result.isnan().any()


def test_allowed_tokens_keep_their_logits_and_all_others_are_banned():
    row = random_row()
    result = edited(row, allowed_token_ids=[2, 250, 2], suppressed=[250])
    assert result[2] == row[2]
    assert torch.isneginf(result).sum() == VOCAB_SIZE - 1


def test_bad_words_are_transformers_within_the_output():
    row = random_row()
    bad_words = [(10,), (20, 21), (30, 31, 32), (40, 41), (1, 2, 3, 4, 5, 6, 7)]
    for output in ([20], [30, 31], [31], [40, 9], [30, 20], [1, 2, 3, 4, 5, 6]):
        processor = NoBadWordsLogitsProcessor([list(word) for word in bad_words], eos_token_id=VOCAB_SIZE - 1)
        expected = processor(torch.tensor([output]), row[None].clone())[0]
        result = edited(row, output=output, bad_words=bad_words)
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_a_bad_word_begun_in_the_prompt_is_not_the_outputs():
    assert completed_bad_words([(20, 21)], [20]) == {21}
    assert completed_bad_words([(20, 21)], []) == set()
    assert completed_bad_words([(21,)], []) == {21}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"logit_bias": {VOCAB_SIZE: 1.0}}, r"logit_bias names token 300.*0 to 299"),
        ({"allowed_token_ids": [4, 10**6]}, r"allowed_token_ids names token 1000000"),
        ({"suppressed": [-1]}, r"names token -1"),
        ({"output": [400], "presence_penalty": 1.0}, r"the history names token 400"),
    ],
)
def test_ids_outside_the_vocabulary_are_named(edits, message):
    with pytest.raises(ValueError, match=message):
        edited(random_row(), **edits)
