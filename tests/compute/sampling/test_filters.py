"""Each filter keeps exactly what transformers' keeps, and a draw inverts the distribution exactly.

A fine grid of uniform numbers walks through the whole cumulative distribution, so a token must come up in
proportion to its probability to within one grid step: no statistics needed.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from octavo.compute.sampling.filters import Draw, argmax, draw_filtered, draw_plain
from octavo.compute.sampling.vocab_blocks import VocabBlocks

NUM_GRID_STEPS = 1000


def random_row(vocab_size: int, *, spread: float = 3.0, seed: int = 0) -> torch.Tensor:
    return spread * torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed))


def grid_counts(row: torch.Tensor, num_steps: int = NUM_GRID_STEPS, **filters) -> torch.Tensor:
    """How often each token comes for evenly spaced uniform numbers."""
    draws = [
        Draw(row=0, uniform=(step + 0.5) / num_steps, row_maximum=row.amax().item(), **filters)
        for step in range(num_steps)
    ]
    blocks = VocabBlocks(row[None])
    tokens = (
        draw_filtered(blocks, blocks.maxima(), draws) if draws[0].is_filtered else draw_plain(blocks, draws)
    )
    return torch.bincount(torch.tensor(tokens), minlength=len(row))


def reference_probabilities(row, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> torch.Tensor:
    """vLLM's order out of transformers' parts, in float64."""
    scores = row[None].double()
    ids = torch.zeros(1, 1, dtype=torch.int64)
    warpers = [TemperatureLogitsWarper(temperature)]
    if min_p > 0.0:
        warpers.append(MinPLogitsWarper(min_p))
    if top_k > 0:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    for warper in warpers:
        scores = warper(ids, scores)
    return scores.softmax(dim=-1)[0]


def assert_drawn_in_proportion(
    row: torch.Tensor, num_steps: int = NUM_GRID_STEPS, tolerance: float = 1.01, **filters
) -> None:
    counts = grid_counts(row, num_steps, **filters)
    expected = num_steps * reference_probabilities(row, **filters)
    assert bool((counts[expected == 0] == 0).all()), "a filtered token was drawn"
    assert (counts - expected).abs().amax() <= tolerance


@pytest.mark.parametrize("vocab_size", [2, 100, 128, 1000, 1280])
@pytest.mark.parametrize(
    "filters",
    [
        {"temperature": 1.0},
        {"temperature": 0.3},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 0.8, "top_k": 40},
        {"temperature": 1.0, "top_k": 700},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 2.0, "top_p": 0.999},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 1.0, "min_p": 0.05},
        {"temperature": 1.5, "min_p": 1.0},
        {"temperature": 0.9, "top_k": 30, "top_p": 0.8},
        {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.02},
    ],
)
def test_tokens_come_in_proportion_to_the_filtered_softmax(vocab_size, filters):
    filters = filters if filters.get("top_k", 0) < vocab_size else filters | {"top_k": 0}
    assert_drawn_in_proportion(random_row(vocab_size), **filters)


@pytest.mark.parametrize("spread", [0.0, 0.1, 10.0])
def test_top_p_holds_for_flat_and_for_peaked_rows_of_a_large_vocabulary(spread):
    # The slope orders the equals; the flat rows need more candidates than the first guess lets through.
    row = random_row(20_000, spread=spread) + torch.linspace(0, 1e-3, 20_000)
    assert_drawn_in_proportion(row, num_steps=150, tolerance=1.1, temperature=1.0, top_p=0.9)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocab_size=st.sampled_from([3, 129, 640]),
    temperature=st.floats(0.05, 2.0),
    top_k=st.integers(0, 200),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 0.5),
)
def test_any_mix_of_filters_draws_in_proportion(*, seed, vocab_size, temperature, top_k, top_p, min_p):
    top_k = top_k if top_k < vocab_size else 0
    row = random_row(vocab_size, seed=seed)
    probabilities = reference_probabilities(row, temperature=temperature, top_k=top_k, min_p=min_p)
    ordered = probabilities.sort(descending=True).values
    edge = (ordered.cumsum(0) - top_p).abs().amin()
    if top_p < 1.0 and edge < 1e-5:
        return  # float32 and float64 may rightly disagree about the token at the very edge
    assert_drawn_in_proportion(row, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)


def test_top_k_keeps_all_equals_of_the_kth_as_vllm_and_transformers_do():
    row = torch.zeros(500)
    row[[3, 200, 450]] = 5.0
    row[7] = 6.0
    counts = grid_counts(row, temperature=1.0, top_k=2)
    assert counts.nonzero().flatten().tolist() == [3, 7, 200, 450]


def test_top_p_prefers_the_lowest_ids_among_equals():
    counts = grid_counts(torch.zeros(1000), temperature=1.0, top_p=0.25)
    assert counts.nonzero().flatten().tolist() == list(range(250))


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}])
@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-6])
def test_a_temperature_near_zero_is_the_argmax(filters, temperature):
    row = random_row(1000)
    counts = grid_counts(row, temperature=temperature, **filters)
    assert counts.argmax() == row.argmax()
    assert counts.amax() == NUM_GRID_STEPS


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_k": 900}, {"top_p": 0.9}, {"min_p": 1e-300}])
@pytest.mark.parametrize("extreme", [0.0, 1.0 - 2.0**-53])
def test_banned_tokens_never_come_even_at_the_ends_of_the_uniform(filters, extreme):
    row = torch.full((1000,), -torch.inf)
    row[[130, 999]] = torch.tensor([1.0, 2.0])
    draw = Draw(row=0, uniform=extreme, row_maximum=2.0, temperature=1.0, **filters)
    blocks = VocabBlocks(row[None])
    tokens = (
        draw_filtered(blocks, blocks.maxima(), [draw]) if draw.is_filtered else draw_plain(blocks, [draw])
    )
    assert tokens[0] in (130, 999)


@pytest.mark.parametrize("vocab_size", [1, 7, 128, 1000])
def test_argmax_takes_the_lowest_id_among_equals(vocab_size):
    rows = torch.randint(0, 3, (50, vocab_size), generator=torch.Generator().manual_seed(1)).float()
    blocks = VocabBlocks(rows)
    expected = [row.tolist().index(max(row.tolist())) for row in rows]
    assert argmax(blocks, blocks.maxima(), list(range(50))) == expected
