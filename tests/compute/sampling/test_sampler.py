"""The whole sampler: batch independence, statistics, failures that stay in their row, raw logprobs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.compute.sampling import Sampler, token_logprobs
from octavo.sampling_params import SamplingParams
from octavo.step import SampledToken, SampleRequest

VOCAB_SIZE = 1500


def random_logits(num_rows: int, vocab_size: int = VOCAB_SIZE, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def request(*, seed=0, position=10, suppressed=(), bad_words=(), prompt=(), output=(), **params):
    return SampleRequest(
        params=SamplingParams(**params),
        seed=seed,
        position=position,
        suppressed_token_ids=tuple(suppressed),
        bad_words_token_ids=tuple(bad_words),
        prompt_token_ids=list(prompt),
        output_token_ids=list(output),
    )


def tokens(logits: torch.Tensor, requests: list[SampleRequest]) -> list[int]:
    outcomes = Sampler(logits.shape[1]).sample(logits.clone(), requests)
    assert all(isinstance(outcome, SampledToken) for outcome in outcomes)
    return [outcome.token_id for outcome in outcomes]


token_ids = st.integers(0, VOCAB_SIZE - 1)
sample_requests = st.builds(
    request,
    seed=st.integers(-(2**63), 2**63 + 127),
    position=st.integers(1, 2**31),
    temperature=st.sampled_from([0.0, 1e-9, 0.4, 1.0, 2.0]),
    top_k=st.sampled_from([-1, 0, 1, 5, 11, 12, 13, 400, VOCAB_SIZE, 10**9]),
    top_p=st.sampled_from([1e-6, 0.3, 0.95, 0.9999, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 1e-12, 0.1, 1.0]),
    presence_penalty=st.sampled_from([0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.dictionaries(token_ids, st.floats(-100, 100), max_size=3),
    allowed_token_ids=st.one_of(st.just([]), st.lists(token_ids, min_size=1, max_size=30)),
    suppressed=st.lists(token_ids, max_size=3),
    bad_words=st.lists(st.lists(token_ids, min_size=1, max_size=2).map(tuple), max_size=3),
    prompt=st.lists(token_ids, max_size=20),
    output=st.lists(token_ids, max_size=20),
    logprobs=st.sampled_from([None, None, 0, 7]),
)


@settings(max_examples=50, deadline=None)
@given(
    requests=st.lists(sample_requests, min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.0, 0.2, 1.0, 5.0]),
    poisoned=st.booleans(),
)
def test_a_rows_outcome_never_depends_on_the_other_rows(requests, seed, spread, poisoned):
    logits = spread * random_logits(len(requests), seed=seed)
    if poisoned:
        logits[0, 3] = math.nan
    sampler = Sampler(VOCAB_SIZE)
    together = sampler.sample(logits.clone(), requests)
    backwards = sampler.sample(logits.flip(0).contiguous(), requests[::-1])[::-1]
    alone = [sampler.sample(logits[i : i + 1].clone(), [one])[0] for i, one in enumerate(requests)]
    assert together == alone == backwards
    assert not poisoned or isinstance(together[0], str)


@pytest.mark.parametrize("vocab_size", [49152, 50257])
def test_a_real_vocabulary_samples_alike_alone_batched_and_with_any_threads(vocab_size):
    kinds = [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
        {"temperature": 1.0, "top_p": 0.95},
        {"temperature": 1.0, "min_p": 0.05, "logprobs": 5},
    ]
    logits = random_logits(35, vocab_size)
    requests = [request(seed=i, position=100 + i, **kinds[i % len(kinds)]) for i in range(35)]
    sampler = Sampler(vocab_size)
    together = sampler.sample(logits.clone(), requests)
    num_threads = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert sampler.sample(logits.clone(), requests) == together
            alone = [sampler.sample(logits[i : i + 1].clone(), [requests[i]])[0] for i in range(35)]
            assert alone == together
    finally:
        torch.set_num_threads(num_threads)


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> tuple[float, int]:
    """Statistic and degrees of freedom, tokens expected fewer than five times taken together."""
    expected = probabilities * counts.sum()
    is_common = expected >= 5
    pooled = torch.cat([counts[is_common], counts[~is_common].sum()[None]])
    pooled_expected = torch.cat([expected[is_common], expected[~is_common].sum()[None]])
    if pooled_expected[-1] < 5:
        pooled, pooled_expected = pooled[:-1], pooled_expected[:-1]
    return ((pooled - pooled_expected) ** 2 / pooled_expected).sum().item(), len(pooled) - 1


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.6},
        {"temperature": 1.0, "top_k": 20},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 1.0, "min_p": 0.1},
    ],
)
@pytest.mark.parametrize("varies", ["position", "seed"])
def test_sampled_tokens_follow_the_softmax_over_many_positions_and_seeds(params, varies):
    row = random_logits(1, 300) / 2
    count = 4000
    requests = [request(**params, **{"seed": 5, "position": 9} | {varies: index}) for index in range(count)]
    drawn = torch.tensor(tokens(row.expand(count, -1).contiguous(), requests))
    probabilities = (row[0].double() / params["temperature"]).softmax(0)
    ordered, ids = probabilities.sort(descending=True)
    keep = torch.ones(300, dtype=torch.bool)
    if "top_k" in params:
        keep[params["top_k"] :] = False
    if "top_p" in params:
        keep &= ordered.cumsum(0) - ordered < params["top_p"]
    if "min_p" in params:
        keep &= ordered >= params["min_p"] * ordered[0]
    kept = torch.zeros(300, dtype=torch.float64).scatter(0, ids, ordered * keep)
    counts = torch.bincount(drawn, minlength=300).double()
    assert counts[kept == 0].sum() == 0
    statistic, freedom = chi_square(counts, kept / kept.sum())
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_tokens_of_neighbouring_positions_are_independent():
    row = torch.tensor([[0.0, 0.0, math.log(2.0)]])
    count = 9001
    drawn = tokens(row.expand(count, -1).contiguous(), [request(seed=1, position=i) for i in range(count)])
    pairs = torch.bincount(torch.tensor(drawn[:-1]) * 3 + torch.tensor(drawn[1:]), minlength=9).double()
    marginal = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    statistic, freedom = chi_square(pairs, torch.outer(marginal, marginal).flatten())
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_greedy_takes_the_lowest_id_among_equals_after_edits():
    logits = torch.zeros(3, VOCAB_SIZE)
    logits[:, [700, 20, 1400]] = 5.0
    requests = [
        request(temperature=0.0),
        request(temperature=0.0, suppressed=[20]),
        request(temperature=0.0, logit_bias={1400: 0.5}),
    ]
    assert tokens(logits, requests) == [20, 700, 1400]


def test_logprobs_are_of_the_untouched_logits():
    logits = random_logits(2)
    requests = [
        request(temperature=0.0, logprobs=3, allowed_token_ids=[8], repetition_penalty=2.0, output=[8, 9]),
        request(temperature=0.3, top_k=2, logprobs=0, seed=4),
    ]
    outcomes = Sampler(VOCAB_SIZE).sample(logits.clone(), requests)
    chosen = [outcome.token_id for outcome in outcomes]
    assert chosen[0] == 8
    assert [outcome.logprobs for outcome in outcomes] == token_logprobs(logits, chosen, [3, 0])
    assert token_logprobs(logits, chosen, 0)[0].logprob < -1  # token 8 was forced, not likely


def test_each_failing_row_says_why_and_the_others_are_good():
    logits = random_logits(8)
    logits[1, 5] = math.nan
    logits[2, 5] = math.inf
    logits[3] = -math.inf
    broken = request(temperature=1.0)
    object.__setattr__(broken, "seed", "seven")  # what no client can send must still harm nobody else
    requests = [
        request(temperature=0.0),
        request(temperature=0.0, suppressed=[5], logprobs=1),
        request(temperature=1.0, logit_bias={5: -100.0}),
        request(temperature=1.0, top_p=0.9),
        request(temperature=1.0, allowed_token_ids=[3, 4], suppressed=[3, 4]),
        request(temperature=1.0, logit_bias={VOCAB_SIZE: 1.0}),
        broken,
        request(temperature=1.0, seed=3),
    ]
    outcomes = Sampler(VOCAB_SIZE).sample(logits.clone(), requests)
    assert [isinstance(outcome, str) for outcome in outcomes] == [False] + [True] * 6 + [False]
    for row in (1, 2, 3):
        assert "not finite" in outcomes[row]
    assert "no token is left" in outcomes[4]
    assert "logit_bias names token 1500" in outcomes[5]
    assert outcomes[6].startswith("sampling failed: ")
    assert all("\n" not in outcome for outcome in outcomes if isinstance(outcome, str))
    assert outcomes[0].token_id == int(logits[0].argmax())
    assert outcomes[7] == Sampler(VOCAB_SIZE).sample(logits[7:].clone(), requests[7:])[0]


def test_a_model_may_rule_out_tokens_with_minus_infinity():
    logits = torch.full((4, VOCAB_SIZE), -torch.inf)
    logits[:, 1499] = 0.0
    requests = [request(temperature=t, top_p=p) for t, p in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.5), (2.0, 0.99))]
    assert tokens(logits, requests) == [1499] * 4


def test_no_rows_give_no_tokens():
    assert Sampler(VOCAB_SIZE).sample(torch.zeros(0, VOCAB_SIZE), []) == []


@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(2, VOCAB_SIZE),
        torch.zeros(1, VOCAB_SIZE + 1),
        torch.zeros(1, VOCAB_SIZE, dtype=torch.bfloat16),
    ],
)
def test_logits_that_do_not_fit_are_refused_as_a_whole(logits):
    with pytest.raises(ValueError, match="logits must be float32 of shape"):
        Sampler(VOCAB_SIZE).sample(logits, [request()])


def test_the_largest_alone_is_what_sample_would_answer() -> None:
    logits = torch.randn(4, 300)
    logits[2, 5] = torch.nan
    requests = [SampleRequest(SamplingParams(temperature=0.0), 0, row) for row in range(4)]
    sampler = Sampler(300)
    assert sampler.needs_only_largest(requests)
    maxima = logits.amax(dim=1)
    expected = sampler.sample(logits.clone(), requests)
    assert sampler.accept_largest(logits.argmax(dim=1), maxima) == expected


@pytest.mark.parametrize(
    "request_",
    [
        SampleRequest(SamplingParams(temperature=0.7), 0, 3),
        SampleRequest(SamplingParams(temperature=0.0, logprobs=0), 0, 3),
        SampleRequest(SamplingParams(temperature=0.0, logit_bias={3: 1.0}), 0, 3),
        SampleRequest(SamplingParams(temperature=0.0, presence_penalty=0.5), 0, 3),
        SampleRequest(SamplingParams(temperature=0.0), 0, 3, suppressed_token_ids=(2,)),
        SampleRequest(SamplingParams(temperature=0.0), 0, 3, num_candidates=4),
    ],
)
def test_rows_that_need_logits(request_: SampleRequest) -> None:
    assert not Sampler(300).needs_only_largest(
        [SampleRequest(SamplingParams(temperature=0.0), 0, 3), request_]
    )
