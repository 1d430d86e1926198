"""What is refused at the door, and in which words."""

import pytest

from octavo.control.request_limits import RequestLimits
from octavo.errors import ContextLengthError, RequestError
from octavo.sampling_params import SamplingParams

LIMITS = RequestLimits(vocab_size=100, max_model_len=64, num_blocks=1000, block_size=4, max_num_seqs=16)
SMALL_POOL = RequestLimits(vocab_size=100, max_model_len=64, num_blocks=5, block_size=4, max_num_seqs=16)


@pytest.mark.parametrize(
    ("prompt", "params", "bad_words", "param"),
    [
        ([], SamplingParams(), (), "prompt"),
        ([1, 100], SamplingParams(), (), "prompt"),
        ([1, -1], SamplingParams(), (), "prompt"),
        ([1, True], SamplingParams(), (), "prompt"),
        ([1, 2.0], SamplingParams(), (), "prompt"),
        ([1, "2"], SamplingParams(), (), "prompt"),
        ([1], SamplingParams(stop_token_ids=[100]), (), "stop_token_ids"),
        ([1], SamplingParams(allowed_token_ids=[3, 2**31]), (), "allowed_token_ids"),
        ([1], SamplingParams(logit_bias={100: 1.0}), (), "logit_bias"),
        ([1], SamplingParams(bad_words=["x"]), ((100,),), "bad_words"),
        ([1], SamplingParams(bad_words=["x"]), ((),), "bad_words"),
    ],
)
def test_wrong_token_ids_are_refused_by_field(prompt, params, bad_words, param):
    with pytest.raises(RequestError) as caught:
        LIMITS.check(prompt, params, bad_words)
    assert caught.value.param == param
    assert "\n" not in str(caught.value)


def test_the_edges_of_the_vocabulary_are_fine():
    params = SamplingParams(max_tokens=3, stop_token_ids=[99], allowed_token_ids=[0], logit_bias={99: 1.0})
    assert LIMITS.check([0, 99], params, ((99,),)) == 3


@pytest.mark.parametrize(
    ("prompt_length", "max_tokens", "resolved"),
    [(63, 1, 1), (64, 0, 0), (32, 32, 32), (1, None, 63), (63, None, 1)],
)
def test_what_just_fits_the_context(prompt_length, max_tokens, resolved):
    assert LIMITS.check([1] * prompt_length, SamplingParams(max_tokens=max_tokens)) == resolved


@pytest.mark.parametrize(
    ("prompt_length", "max_tokens", "param", "numbers"),
    [
        (64, 1, "prompt", ["64 tokens", "together 65"]),
        (65, 0, "prompt", ["65 tokens", "context is 64"]),
        (64, None, "prompt", ["64 tokens", "at least 1 more"]),
        (32, 33, "max_tokens", ["32 tokens", "max_tokens is 33", "together 65", "context is 64"]),
    ],
)
def test_what_does_not_fit_the_context_is_refused_with_the_numbers(prompt_length, max_tokens, param, numbers):
    with pytest.raises(ContextLengthError) as caught:
        LIMITS.check([1] * prompt_length, SamplingParams(max_tokens=max_tokens))
    assert caught.value.param == param
    for number in numbers:
        assert number in str(caught.value)


def test_a_pool_smaller_than_the_context():
    # 20 slots; the token sampled last needs none.
    assert SMALL_POOL.check([1] * 10, SamplingParams(max_tokens=11)) == 11
    assert SMALL_POOL.check([1] * 10, SamplingParams(max_tokens=None)) == 11
    assert SMALL_POOL.check([1] * 20, SamplingParams(max_tokens=1)) == 1
    assert SMALL_POOL.check([1] * 20, SamplingParams(max_tokens=0)) == 0
    with pytest.raises(ContextLengthError, match=r"needs 6 KV blocks of 4 tokens.*has 5") as caught:
        SMALL_POOL.check([1] * 10, SamplingParams(max_tokens=12))
    assert caught.value.param == "max_tokens"
    with pytest.raises(ContextLengthError, match="needs 6 KV blocks") as caught:
        SMALL_POOL.check([1] * 21, SamplingParams(max_tokens=None))
    assert caught.value.param == "prompt"
