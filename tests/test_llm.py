"""LLM on the starter model: prompts in, outputs out, alone and together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from octavo import LLM, RequestOutput, SamplingParams, ServiceParams
from octavo.errors import ConfigError, ContextLengthError, EngineUnavailableError, RequestError

GREEDY = SamplingParams(temperature=0.0, max_tokens=8)
STORY = "Once upon a time"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(kv_cache_memory="48MB", num_threads=1, seed=3) as loaded:
        yield loaded


def joined(pieces: list[RequestOutput]) -> tuple[str, list[int]]:
    """Text and token ids of a stream with one continuation."""
    outputs = [output for piece in pieces for output in piece.outputs]
    text = "".join(output.text for output in outputs)
    return text, [token_id for output in outputs for token_id in output.token_ids]


def test_a_prompt_may_be_text_a_dict_or_token_ids(llm):
    token_ids = llm.get_tokenizer().encode(STORY)
    prompts = [STORY, {"prompt": STORY}, {"prompt_token_ids": token_ids}]
    outputs = llm.generate(prompts, GREEDY)
    assert [output.prompt for output in outputs] == [STORY, STORY, None]
    assert all(output.prompt_token_ids == token_ids and output.finished for output in outputs)
    texts = {output.outputs[0].text for output in outputs}
    assert len(texts) == 1
    assert len(outputs[0].outputs[0].token_ids) == 8
    assert outputs[0].outputs[0].finish_reason == "length"
    assert llm.get_tokenizer().decode(outputs[0].outputs[0].token_ids) in texts


def test_outputs_come_in_the_order_of_the_prompts_and_as_if_alone(llm):
    prompts = [STORY, "The capital of France is", "def add(a, b):", "1 2 3 4"]
    params = [SamplingParams(temperature=0.0, max_tokens=length) for length in (12, 3, 9, 1)]
    together = llm.generate(prompts, params)
    assert [output.prompt for output in together] == prompts
    assert [len(output.outputs[0].token_ids) for output in together] == [12, 3, 9, 1]
    for prompt, one, output in zip(prompts, params, together, strict=True):
        (alone,) = llm.generate(prompt, one)
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids


def test_more_prompts_than_the_steps_hold(llm):
    with LLM(kv_cache_memory="48MB", num_threads=1, max_num_seqs=3, max_num_batched_tokens=16) as small:
        prompts = [f"{number} plus one is" for number in range(10)]
        params = SamplingParams(temperature=0.0, max_tokens=3)
        small_texts = [output.outputs[0].text for output in small.generate(prompts, params)]
    assert small_texts == [output.outputs[0].text for output in llm.generate(prompts, params)]


def test_without_params_the_models_defaults_are_taken(llm):
    assert llm.get_default_sampling_params() == SamplingParams()
    (output,) = llm.generate(STORY)
    assert len(output.outputs[0].token_ids) <= 16


def test_no_prompts_no_outputs(llm):
    assert llm.generate([]) == []


def test_a_stop_string_cuts_text_and_tokens_and_leaves_the_others_alone(llm):
    long = SamplingParams(temperature=0.0, max_tokens=24)
    (whole,) = llm.generate(STORY, long)
    text, token_ids = whole.outputs[0].text, whole.outputs[0].token_ids
    stop = text[12:16]
    stopped, other = llm.generate(
        [STORY, STORY], [SamplingParams(temperature=0.0, max_tokens=24, stop=stop), long]
    )
    output = stopped.outputs[0]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    assert output.text == text[: text.index(stop)]
    decode = llm.get_tokenizer().decode
    assert output.token_ids == token_ids[: len(output.token_ids)]
    assert stop in decode(output.token_ids)
    assert stop not in decode(output.token_ids[:-1])
    assert other.outputs[0].token_ids == token_ids


def test_a_stop_token_is_kept_in_the_tokens_and_not_in_the_text(llm):
    (whole,) = llm.generate(STORY, GREEDY)
    token_ids = whole.outputs[0].token_ids
    stop_id = token_ids[4]
    (stopped,) = llm.generate(STORY, SamplingParams(temperature=0.0, max_tokens=8, stop_token_ids=[stop_id]))
    output = stopped.outputs[0]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop_id)
    assert output.token_ids == token_ids[: token_ids.index(stop_id) + 1]
    assert output.text == llm.get_tokenizer().decode(output.token_ids[:-1])


def test_log_probabilities(llm):
    params = SamplingParams(temperature=0.0, max_tokens=4, logprobs=2, prompt_logprobs=1)
    (request_output,) = llm.generate(STORY, params)
    output = request_output.outputs[0]
    assert len(output.logprobs) == 4
    chosen = [place[token_id] for place, token_id in zip(output.logprobs, output.token_ids, strict=True)]
    assert [entry.rank for entry in chosen] == [1, 1, 1, 1]
    assert [entry.decoded_token for entry in chosen] == [
        llm.get_tokenizer().token_text(token_id) for token_id in output.token_ids
    ]
    assert output.cumulative_logprob == pytest.approx(sum(entry.logprob for entry in chosen))
    assert all([entry.rank for entry in place.values()] == [1, 2] for place in output.logprobs)
    first, *rest = request_output.prompt_logprobs
    assert first is None
    assert len(rest) == len(request_output.prompt_token_ids) - 1
    for token_id, place in zip(request_output.prompt_token_ids[1:], rest, strict=True):
        assert next(iter(place)) == token_id
    (plain,) = llm.generate(STORY, GREEDY)
    assert (plain.outputs[0].logprobs, plain.outputs[0].cumulative_logprob) == (None, None)
    assert plain.prompt_logprobs is None


def test_n_continuations_use_seeds_that_follow_each_other(llm):
    (several,) = llm.generate(STORY, SamplingParams(n=3, seed=11, max_tokens=6))
    assert [output.index for output in several.outputs] == [0, 1, 2]
    for index, output in enumerate(several.outputs):
        (alone,) = llm.generate(STORY, SamplingParams(seed=11 + index, max_tokens=6))
        assert alone.outputs[0].token_ids == output.token_ids
    assert len({output.text for output in several.outputs}) > 1


def test_best_of_returns_the_likeliest(llm):
    (five,) = llm.generate(STORY, SamplingParams(n=5, seed=11, max_tokens=6, logprobs=0))
    (best,) = llm.generate(STORY, SamplingParams(n=2, best_of=5, seed=11, max_tokens=6))
    expected = sorted(
        five.outputs, key=lambda output: output.cumulative_logprob / len(output.token_ids), reverse=True
    )
    assert [output.token_ids for output in best.outputs] == [one.token_ids for one in expected[:2]]
    assert [output.index for output in best.outputs] == [0, 1]
    assert all(output.logprobs is None and output.finished() for output in best.outputs)
    assert best.num_generated_tokens == five.num_generated_tokens
    assert five.kv_sharing is not None
    assert 0 <= five.kv_sharing < 1


def test_beams(llm):
    params = SamplingParams(n=2, best_of=4, use_beam_search=True, max_tokens=6)
    (output,) = llm.generate(STORY, params)
    assert [one.index for one in output.outputs] == [0, 1]
    assert all(one.text and one.finished() for one in output.outputs)
    (chat,) = llm.chat([{"role": "user", "content": "Hello"}], params)
    assert all(one.text for one in chat.outputs)


def test_every_choice_of_a_beam_search_ends_where_fewer_are_possible_than_were_asked_for(llm):
    params = SamplingParams(n=3, use_beam_search=True, max_tokens=2, allowed_token_ids=[100], ignore_eos=True)
    (output,) = llm.generate(STORY, params)
    assert [one.token_ids for one in output.outputs] == [[100, 100]] * 3


def test_a_beam_ends_before_its_stop_string(llm):
    params = SamplingParams(n=2, use_beam_search=True, max_tokens=12, stop=[","])
    (output,) = llm.generate(STORY, params)
    stopped = [one for one in output.outputs if one.stop_reason == ","]
    assert stopped
    for one in stopped:
        assert one.finish_reason == "stop"
        assert "," not in one.text
        assert "," in llm.get_tokenizer().decode(one.token_ids)


def test_what_is_known_only_at_the_end_is_not_streamed(llm):
    for params in (SamplingParams(best_of=2), SamplingParams(use_beam_search=True)):
        with pytest.raises(RequestError, match="cannot be streamed"):
            next(llm.stream(STORY, params))


def test_the_models_defaults_go_under_what_is_wanted(llm, monkeypatch):
    monkeypatch.setitem(llm._text.description.default_sampling, "temperature", 0.6)
    assert llm.get_default_sampling_params().temperature == 0.6
    assert llm.make_sampling_params({"temperature": 0.1, "n": 2}) == SamplingParams(temperature=0.1, n=2)
    assert llm.make_sampling_params({"use_beam_search": True}).temperature == 1.0


def test_a_deadline_ends_a_request_and_leaves_the_others_alone(llm):
    long = SamplingParams(temperature=0.0, max_tokens=1000, ignore_eos=True)
    late, good = llm.generate(
        [STORY, STORY], [long, GREEDY], service_params=[ServiceParams(deadline_seconds=0.2), ServiceParams()]
    )
    assert late.outputs[0].finish_reason == "deadline"
    assert late.outputs[0].error
    assert good.outputs[0].finish_reason == "length"


def test_service_params_are_checked_before_anything_is_computed(llm):
    with pytest.raises(RequestError, match="priority has no effect"):
        llm.generate(STORY, GREEDY, service_params=ServiceParams(priority=1))
    with pytest.raises(RequestError, match="2 service_params for 1 prompts"):
        llm.generate([STORY], GREEDY, service_params=[ServiceParams()] * 2)
    with LLM(kv_cache_memory="8MB", num_threads=1, policy="priority") as urgent:
        (output,) = urgent.generate(STORY, GREEDY, service_params=ServiceParams(priority=1))
        assert output.finished


def test_a_prefix_is_pinned_listed_and_dropped(llm):
    prompt = "The quick brown fox jumps over the lazy dog, and the dog does not mind." * 2
    num_tokens = len(llm.get_tokenizer().encode(prompt))
    pin = llm.pin_prefix(prompt, ttl_seconds=60, cache_salt="s")
    assert 0 < pin.num_tokens <= num_tokens
    listing = llm.cached_prefixes()
    assert [one.pin_id for one in listing.pins] == [pin.pin_id]
    assert any(prefix.cache_salt == "s" for prefix in listing.prefixes)
    salted = ServiceParams(cache_salt="s")
    (hit,) = llm.generate(prompt + " Never", GREEDY, service_params=salted)
    (miss,) = llm.generate(prompt + " Never", GREEDY, service_params=ServiceParams(cache_salt="t"))
    assert hit.num_cached_tokens >= pin.num_tokens
    assert miss.num_cached_tokens == 0
    assert hit.outputs[0].token_ids == miss.outputs[0].token_ids
    again = llm.pin_prefix(prompt, cache_salt="s")
    llm.unpin_prefix(pin.pin_id)
    assert [one.pin_id for one in llm.cached_prefixes().pins] == [again.pin_id]
    with pytest.raises(RequestError):
        llm.unpin_prefix(pin.pin_id)
    assert llm.drop_prefix_cache() > 0
    assert llm.cached_prefixes().prefixes == []


def test_what_cannot_be_pinned(llm):
    with pytest.raises(RequestError, match="ttl_seconds"):
        llm.pin_prefix(STORY, ttl_seconds=0)
    with pytest.raises(RequestError, match="whole blocks of 16"):
        llm.pin_prefix(STORY)
    with LLM(kv_cache_memory="8MB", num_threads=1, prefix_caching=False) as forgetful:
        with pytest.raises(RequestError, match="prefix_caching=False"):
            forgetful.pin_prefix(STORY)
        for _ in range(2):
            (output,) = forgetful.generate(STORY, GREEDY)
            assert output.num_cached_tokens == 0


def test_a_stream_brings_what_generate_returns(llm):
    params = SamplingParams(temperature=0.0, max_tokens=12)
    pieces = list(llm.stream(STORY, params))
    (whole,) = llm.generate(STORY, params)
    assert len(pieces) == 12
    assert [piece.finished for piece in pieces] == [False] * 11 + [True]
    assert joined(pieces) == (whole.outputs[0].text, whole.outputs[0].token_ids)


def test_streams_read_in_turn_do_not_take_each_others_pieces(llm):
    params = SamplingParams(temperature=0.0, max_tokens=10)
    first, second = llm.stream(STORY, params), llm.stream("The capital of France is", params)
    pairs = list(zip(first, second, strict=True))
    wholes = llm.generate([STORY, "The capital of France is"], params)
    for pieces, whole in zip(zip(*pairs, strict=True), wholes, strict=True):
        assert joined(list(pieces)) == (whole.outputs[0].text, whole.outputs[0].token_ids)


def test_closing_a_stream_aborts_its_request(llm):
    stream = llm.stream(STORY, SamplingParams(max_tokens=1000, ignore_eos=True))
    next(stream)
    stream.close()
    llm.generate(STORY, SamplingParams(max_tokens=1))
    trace = llm._engine.last_step
    assert (trace.num_running, trace.blocks_used) == (0, 0)


def test_endless_requests_are_read_only_as_far_as_there_is_room(llm):
    num_read = 0

    def requests():
        nonlocal num_read
        for num_read in itertools.count(1):
            yield f"Number {num_read}:", SamplingParams(temperature=0.0, max_tokens=1 + num_read % 5)

    answers = llm.generate_each(requests())
    indices = [index for index, _ in itertools.islice(answers, 20)]
    answers.close()
    assert len(set(indices)) == 20
    assert num_read < 20 + 3 * llm._max_num_seqs
    assert not llm._live._live


def test_what_is_wrong_with_one_request_comes_in_its_place(llm):
    requests = [(STORY, GREEDY), ({"prompt_token_ids": []}, GREEDY), ({"prompt_token_ids": [10**9]}, GREEDY)]
    answers = dict(llm.generate_each(requests))
    assert answers[0].outputs[0].finish_reason == "length"
    assert isinstance(answers[1], RequestError)
    assert "1000000000" in str(answers[2])


def test_chat_renders_the_models_template(llm):
    messages = [{"role": "user", "content": "Paris is the capital of France. What is the capital of France?"}]
    (output,) = llm.chat(messages, SamplingParams(temperature=0.0, max_tokens=12))
    assert "Paris" in output.outputs[0].text
    assert output.prompt.endswith("<|im_start|>assistant\n")
    assert output.prompt_token_ids == llm.get_tokenizer().encode(output.prompt, add_special_tokens=False)
    both = llm.chat([messages, messages], SamplingParams(temperature=0.0, max_tokens=12))
    assert [one.outputs[0].token_ids for one in both] == [output.outputs[0].token_ids] * 2


def test_chat_goes_on_with_a_final_message(llm):
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    (output,) = llm.chat(messages, SamplingParams(temperature=0.0, max_tokens=3), continue_final_message=True)
    assert output.prompt.endswith("The capital of France is")
    assert output.outputs[0].text.startswith(" Paris")


@pytest.mark.parametrize(
    ("prompts", "params", "line"),
    [
        ([STORY, STORY], [GREEDY], "1 sampling_params for 2 prompts"),
        ({"text": "a"}, GREEDY, "a prompt must be text"),
        ([17], GREEDY, "a prompt must be text"),
        ({"prompt": 17}, GREEDY, "prompt must be text, not int"),
        ({"prompt_token_ids": "12"}, GREEDY, "must be a list of token ids"),
        ({"prompt_token_ids": [1, -1]}, GREEDY, "token id -1"),
        ([STORY, ""], GREEDY, "empty"),
    ],
)
def test_wrong_prompts_are_refused_in_one_line(llm, prompts, params, line):
    with pytest.raises(RequestError, match=line) as caught:
        llm.generate(prompts, params)
    assert "\n" not in str(caught.value)


def test_what_can_never_fit_is_refused_before_anything_is_computed(llm):
    step_before = llm._engine.last_step
    too_long = {"prompt_token_ids": [5] * 9000}
    with pytest.raises(ContextLengthError, match="9000"):
        llm.generate([STORY, too_long], GREEDY)
    assert llm._engine.last_step is step_before


def test_wrong_settings():
    with pytest.raises(TypeError, match="tensor_parallel_size"):
        LLM(tensor_parallel_size=2)
    with pytest.raises(ConfigError, match="--block-size"):
        LLM(block_size=0)
    with pytest.raises(ConfigError, match="'much'"):
        LLM(kv_cache_memory="much")
    with pytest.raises(ConfigError, match="--policy"):
        LLM(policy="lottery")
    with pytest.raises(ConfigError, match="--fair-weights"):
        LLM(fair_weights={"alice": 2.0})


def test_a_closed_llm_says_so():
    with LLM(kv_cache_memory="8MB", num_threads=1) as closed:
        pass
    closed.close()
    with pytest.raises(EngineUnavailableError, match="closed"):
        closed.generate(STORY)
