"""Log-probabilities against log_softmax in float64, their order among equals, their bits in any batch."""

import math

import pytest
import torch

from octavo.compute.sampling.logprobs import token_logprobs
from octavo.errors import RequestFailedError


def random_logits(num_rows: int, vocab_size: int = 5000) -> torch.Tensor:
    return 3 * torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(3))


def test_logprobs_ranks_and_tops_agree_with_log_softmax():
    logits = random_logits(6)
    targets, counts = [0, 4999, 17, 128, 2500, 1], [0, 1, 5, 20, 3, 20]
    expected = logits.double().log_softmax(dim=1)
    entries = token_logprobs(logits, targets, counts)
    for row, (entry, target, count) in enumerate(zip(entries, targets, counts, strict=True)):
        assert entry.token_id == target
        assert entry.logprob == pytest.approx(expected[row, target].item(), abs=1e-6)
        assert entry.rank == 1 + int((logits[row] > logits[row, target]).sum())
        best = expected[row].topk(count)
        assert list(entry.top_token_ids) == best.indices.tolist()
        assert list(entry.top_logprobs) == pytest.approx(best.values.tolist(), abs=1e-6)


def test_the_likeliest_token_has_one_logprob_in_both_places():
    logits = random_logits(1)
    best = int(logits.argmax())
    (entry,) = token_logprobs(logits, [best], 2)
    assert (entry.rank, entry.top_token_ids[0], entry.top_logprobs[0]) == (1, best, entry.logprob)


def test_equals_share_a_rank_and_come_lowest_id_first():
    logits = torch.zeros(1, 1000)
    logits[0, [700, 300, 900]] = 2.0
    (entry,) = token_logprobs(logits, [900], 5)
    assert entry.rank == 1
    assert entry.top_token_ids == (300, 700, 900, 0, 1)


@pytest.mark.parametrize("num_top", [0, 5])
def test_a_rows_numbers_are_the_same_bits_alone_and_in_any_batch(num_top):
    logits = random_logits(33, 49152)
    targets = list(range(0, 33 * 1000, 1000))
    together = token_logprobs(logits, targets, [num_top] + [20, 0] * 16)
    for row in (0, 16, 32):
        count = len(together[row].top_token_ids)
        assert token_logprobs(logits[row : row + 1], targets[row : row + 1], count) == [together[row]]


def test_many_rows_are_taken_in_turns_with_the_same_result():
    logits = random_logits(2, 2**20).repeat(10, 1)  # more elements than one turn takes
    entries = token_logprobs(logits, [5, 6] * 10, 3)
    assert entries == entries[:2] * 10


def test_impossible_tokens_are_not_among_the_likeliest():
    logits = torch.full((1, 300), -torch.inf)
    logits[0, [4, 250]] = torch.tensor([1.0, 1.0])
    (entry,) = token_logprobs(logits, [4], 10)
    assert entry.logprob == pytest.approx(math.log(0.5))
    assert entry.top_token_ids == (4, 250)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_refused_in_one_line(poison):
    logits = random_logits(2)
    logits[1, 77] = poison
    with pytest.raises(RequestFailedError, match="not finite"):
        token_logprobs(logits, [1, 2], 3)
