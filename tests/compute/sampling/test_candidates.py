"""Candidates of beam search: transformers' scores, the same bits in any batch, failures in their row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from octavo.compute.sampling import Sampler, token_logprobs
from octavo.compute.sampling.logprobs import several_logprobs
from octavo.errors import RequestFailedError
from octavo.sampling_params import SamplingParams
from octavo.step import Candidate, SampledToken, SampleRequest

VOCAB_SIZE = 1500


def random_logits(num_rows: int, vocab_size: int = VOCAB_SIZE, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def request(*, num_candidates=8, suppressed=(), bad_words=(), prompt=(), output=(), **params):
    return SampleRequest(
        params=SamplingParams(use_beam_search=True, best_of=4, **params),
        seed=0,
        position=10,
        suppressed_token_ids=tuple(suppressed),
        bad_words_token_ids=tuple(bad_words),
        prompt_token_ids=list(prompt),
        output_token_ids=list(output),
        num_candidates=num_candidates,
    )


def candidates(logits: torch.Tensor, one: SampleRequest) -> list[Candidate]:
    (outcome,) = Sampler(logits.shape[0]).sample(logits[None].clone(), [one])
    assert isinstance(outcome, list), outcome
    return outcome


def by_processors(logits: torch.Tensor, one: SampleRequest) -> torch.Tensor:
    """What transformers' beam search adds to a beam: its processors over the log-probabilities."""
    params = one.params
    prompt, output = one.prompt_token_ids, one.output_token_ids
    eos = torch.tensor([VOCAB_SIZE - 1])
    processors = LogitsProcessorList()
    if params.logit_bias:
        processors.append(
            SequenceBiasLogitsProcessor({(token,): bias for token, bias in params.logit_bias.items()})
        )
    processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if one.bad_words_token_ids:
        processors.append(NoBadWordsLogitsProcessor([list(word) for word in one.bad_words_token_ids], eos))
    if one.suppressed_token_ids:
        suppressed = torch.tensor(one.suppressed_token_ids)
        processors.append(MinNewTokensLengthLogitsProcessor(len(prompt), len(output) + 1, suppressed))
    scores = torch.log_softmax(logits, dim=-1)[None]
    return processors(torch.tensor([[*prompt, *output]]), scores)[0]


token_ids = st.integers(0, VOCAB_SIZE - 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    one=st.builds(
        request,
        num_candidates=st.sampled_from([1, 2, 8, 13, 200]),  # there are 12 blocks of tokens
        repetition_penalty=st.sampled_from([0.7, 1.0, 1.3]),
        logit_bias=st.dictionaries(token_ids, st.floats(-20, 20), max_size=3),
        suppressed=st.lists(token_ids, max_size=3),
        bad_words=st.lists(st.lists(token_ids, min_size=1, max_size=2).map(tuple), max_size=3),
        prompt=st.lists(token_ids, min_size=1, max_size=20),
        output=st.lists(token_ids, max_size=20),
    ),
)
def test_scores_are_those_of_transformers_processors(seed, one):
    # A bad word that begins in the prompt is transformers' alone; here, as in vLLM, only the output counts.
    begins_in_prompt = not one.output_token_ids and any(
        len(word) > 1 and word[0] == one.prompt_token_ids[-1] for word in one.bad_words_token_ids
    )
    assume(not begins_in_prompt)
    logits = random_logits(1, seed=seed)[0]
    found = candidates(logits, one)
    expected = by_processors(logits, one)
    best = expected.topk(one.num_candidates).values.tolist()
    assert [one.score for one in found] == pytest.approx(best, abs=1e-4)
    for candidate in found:
        assert candidate.score == pytest.approx(float(expected[candidate.token_id]), abs=1e-4)
        assert candidate.logprobs is None
    assert len({candidate.token_id for candidate in found}) == one.num_candidates


def test_frequency_and_presence_are_taken_from_the_log_probability():
    logits = random_logits(1)[0]
    best, second = logits.topk(2).indices.tolist()
    plain = {one.token_id: one.score for one in candidates(logits, request())}
    fined = request(output=[best, best, second], frequency_penalty=0.5, presence_penalty=0.25)
    found = {one.token_id: one.score for one in candidates(logits, fined)}
    assert found.get(best, plain[best] - 1.25) == pytest.approx(plain[best] - 1.25, abs=1e-5)
    assert found.get(second, plain[second] - 0.75) == pytest.approx(plain[second] - 0.75, abs=1e-5)
    raised = request(output=[best, best, second], frequency_penalty=-0.5, presence_penalty=-0.25)
    found = {one.token_id: one.score for one in candidates(logits, raised)}
    assert found[best] == pytest.approx(plain[best] + 1.25, abs=1e-5)
    assert found[second] == pytest.approx(plain[second] + 0.75, abs=1e-5)


def test_a_large_vocabulary_gives_log_softmax():
    logits = random_logits(1, 49152)[0]
    found = candidates(logits, request(num_candidates=700))
    expected = torch.log_softmax(logits.double(), dim=-1).topk(700)
    assert [one.token_id for one in found] == expected.indices.tolist()
    assert [one.score for one in found] == pytest.approx(expected.values.tolist(), abs=5e-6)  # float32's


@pytest.mark.parametrize("edits", [{}, {"logit_bias": {1400: -1.0}}])
def test_equals_come_in_the_order_of_their_ids(edits):
    logits = torch.zeros(VOCAB_SIZE)
    logits[[1200, 7, 300]] = 2.0
    found = candidates(logits, request(num_candidates=5, **edits))
    assert [one.token_id for one in found] == [7, 300, 1200, 0, 1]
    assert found[0].score == found[2].score


def test_fewer_tokens_than_asked_for_are_all_that_can_come():
    logits = random_logits(1)[0]
    logits[5] = -math.inf
    found = candidates(logits, request(allowed_token_ids=[3, 5, 1499, 9], suppressed=[9]))
    assert sorted(one.token_id for one in found) == [3, 1499]
    small = candidates(torch.tensor([0.0, 1.0, -1.0]), request())
    assert [one.token_id for one in small] == [1, 0, 2]
    assert sum(math.exp(one.score) for one in small) == pytest.approx(1.0)


@pytest.mark.parametrize("edits", [{}, {"repetition_penalty": 1.4}, {"allowed_token_ids": [4, 90, 1499]}])
def test_logprobs_are_the_models_own_and_those_of_sampled_tokens(edits):
    logits = random_logits(1)[0]
    logits[[8, 9]] = logits.max()  # a tie for the first rank
    one = request(logprobs=3, prompt=logits.topk(5).indices.tolist(), **edits)
    found = candidates(logits, one)
    assert len(found) == (3 if "allowed_token_ids" in edits else 8)
    for candidate in found:
        (expected,) = token_logprobs(logits[None], [candidate.token_id], 3)
        assert candidate.logprobs == expected  # the same bits


def test_several_logprobs_of_rows_with_other_numbers_of_tokens():
    logits = random_logits(3)
    targets = [[5], [1, 2, 1499], [7, 7]]
    entries = several_logprobs(logits, targets, [0, 20, 2])
    for row, (ids, row_entries) in enumerate(zip(targets, entries, strict=True)):
        for token_id, entry in zip(ids, row_entries, strict=True):
            assert [entry] == token_logprobs(logits[row : row + 1], [token_id], [0, 20, 2][row])
    logits[1, 4] = math.nan
    with pytest.raises(RequestFailedError, match="not finite"):
        several_logprobs(logits, targets, [0, 20, 2])


def test_a_row_that_fails_leaves_the_others_alone():
    logits = random_logits(6)
    logits[0, 3] = math.nan
    logits[2, 3] = math.inf
    requests = [
        request(),
        request(logprobs=2),
        request(logprobs=2),
        request(allowed_token_ids=[4], suppressed=[4], logprobs=1),
        request(logit_bias={VOCAB_SIZE: 1.0}),
        SampleRequest(SamplingParams(temperature=0.0), 0, 10),
    ]
    outcomes = Sampler(VOCAB_SIZE).sample(logits.clone(), requests)
    assert outcomes[0] == outcomes[2] == "the model's logits are not finite for this sequence"
    assert isinstance(outcomes[3], str)
    assert outcomes[3].startswith("no token is left")
    assert isinstance(outcomes[4], str)
    assert "token 1500" in outcomes[4]
    assert outcomes[1] == candidates(logits[1], requests[1])
    assert outcomes[5] == SampledToken(int(logits[5].argmax()))


beam_requests = st.builds(
    request,
    num_candidates=st.sampled_from([1, 4, 8, 30, VOCAB_SIZE + 5]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5]),
    logit_bias=st.dictionaries(token_ids, st.floats(-100, 100), max_size=2),
    suppressed=st.lists(token_ids, max_size=2),
    output=st.lists(token_ids, max_size=20),
    logprobs=st.sampled_from([None, None, 0, 7]),
)
sampled_requests = st.builds(
    SampleRequest,
    st.sampled_from(
        [
            SamplingParams(temperature=0.0, logprobs=2),
            SamplingParams(temperature=1.0),
            SamplingParams(temperature=0.8, top_k=20, repetition_penalty=1.1),
        ]
    ),
    seed=st.integers(0, 9),
    position=st.integers(1, 99),
)


@settings(max_examples=50, deadline=None)
@given(
    requests=st.lists(st.one_of(beam_requests, sampled_requests), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.0, 0.2, 1.0, 5.0]),
    poisoned=st.booleans(),
)
def test_a_rows_candidates_never_depend_on_the_other_rows(requests, seed, spread, poisoned):
    logits = spread * random_logits(len(requests), seed=seed)
    if poisoned:
        logits[0, 3] = math.nan
    sampler = Sampler(VOCAB_SIZE)
    together = sampler.sample(logits.clone(), requests)
    backwards = sampler.sample(logits.flip(0).contiguous(), requests[::-1])[::-1]
    alone = [sampler.sample(logits[i : i + 1].clone(), [one])[0] for i, one in enumerate(requests)]
    assert together == alone == backwards
    for one, outcome in zip(requests, together, strict=True):
        assert isinstance(outcome, str) or isinstance(outcome, list) is (one.num_candidates > 0)


@pytest.mark.parametrize("vocab_size", [49152, 50257])
def test_a_real_vocabulary_gives_the_same_alone_batched_and_with_any_threads(vocab_size):
    logits = random_logits(20, vocab_size)
    kinds = [{}, {"num_candidates": 16}, {"logprobs": 5}, {"repetition_penalty": 1.2, "output": [5, 6, 7]}]
    requests = [request(**kinds[i % len(kinds)]) for i in range(20)]
    sampler = Sampler(vocab_size)
    together = sampler.sample(logits.clone(), requests)
    num_threads = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert sampler.sample(logits.clone(), requests) == together
            alone = [sampler.sample(logits[i : i + 1].clone(), [requests[i]])[0] for i in range(20)]
            assert alone == together
    finally:
        torch.set_num_threads(num_threads)
