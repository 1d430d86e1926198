"""The blocked view must agree with the plain reductions and give a row the same bits in any batch."""

import pytest
import torch

from octavo.compute.sampling.vocab_blocks import BLOCK_WIDTH, VocabBlocks

VOCAB_SIZES = [1, 5, BLOCK_WIDTH, BLOCK_WIDTH + 1, 1000, 49152, 50257]


def random_logits(num_rows: int, vocab_size: int) -> torch.Tensor:
    return 4 * torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(vocab_size))


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_maxima_and_sums_agree_with_whole_row_reductions(vocab_size):
    logits = random_logits(3, vocab_size)
    blocks = VocabBlocks(logits)
    assert torch.equal(blocks.maxima().amax(dim=1), logits.amax(dim=1))
    rows = torch.tensor([2, 0])
    temperatures = torch.tensor([0.7, 1.3])
    sums = blocks.exp_sums(rows, logits[rows].amax(dim=1), temperatures).sum(dim=1)
    expected = (
        (logits[rows] - logits[rows].amax(dim=1, keepdim=True)).double() / temperatures[:, None]
    ).exp()
    torch.testing.assert_close(sums, expected.sum(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_gathered_blocks_put_the_row_together_again(vocab_size):
    logits = random_logits(2, vocab_size)
    blocks = VocabBlocks(logits)
    indices = torch.arange(blocks.num_blocks)
    values, token_ids = blocks.gather(torch.ones_like(indices), indices)
    assert torch.equal(values.flatten()[:vocab_size], logits[1])
    assert torch.equal(token_ids.flatten()[:vocab_size], torch.arange(vocab_size))
    assert bool(torch.isneginf(values.flatten()[vocab_size:]).all())


@pytest.mark.parametrize("vocab_size", [5, 1000, 49152])
def test_a_nan_anywhere_shows_in_the_maxima(vocab_size):
    for place in {0, 1, vocab_size // 2, vocab_size - 2, vocab_size - 1}:
        logits = random_logits(2, vocab_size)
        logits[1, place] = torch.nan
        maxima = VocabBlocks(logits).maxima().amax(dim=1)
        assert maxima.isnan().tolist() == [False, True]


@pytest.mark.parametrize("vocab_size", [1000, 49152, 50257])
def test_a_rows_sums_have_the_same_bits_in_any_batch_and_with_any_threads(vocab_size):
    logits = random_logits(40, vocab_size)
    row_maxima = logits.amax(dim=1)
    temperatures = torch.linspace(0.1, 2.0, 40)
    together = VocabBlocks(logits).exp_sums(torch.arange(40), row_maxima, temperatures)
    num_threads = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for row in (0, 7, 39):
                one = slice(row, row + 1)
                alone = VocabBlocks(logits[one]).exp_sums(
                    torch.tensor([0]), row_maxima[one], temperatures[one]
                )
                assert torch.equal(alone[0], together[row])
    finally:
        torch.set_num_threads(num_threads)
