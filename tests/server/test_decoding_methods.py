"""n, best_of and beam search over the wire, with the official openai client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.server.server_process import ServerProcess

MODEL = "SmolLM2-135M-Instruct"
STORY = "Once upon a time"
HELLO: list[Any] = [{"role": "user", "content": "Say hello in one short sentence."}]


def mean_logprob(choice: Any) -> float:
    logprobs = choice.logprobs.token_logprobs
    return float(sum(logprobs) / len(logprobs))


def test_best_of_returns_the_likeliest_of_what_n_would(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": MODEL, "prompt": STORY, "max_tokens": 8, "seed": 21, "logprobs": 0}
    five = client.completions.create(n=5, **options)
    best = client.completions.create(n=2, best_of=5, **options)
    expected = sorted(five.choices, key=mean_logprob, reverse=True)[:2]
    assert [choice.text for choice in best.choices] == [choice.text for choice in expected]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage is not None
    assert five.usage is not None
    assert best.usage.completion_tokens == five.usage.completion_tokens == 40
    server.wait_idle()


def test_best_of_leaves_no_trace_where_no_logprobs_were_asked_for(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": MODEL, "prompt": [STORY, "Yes or"], "max_tokens": 5, "seed": 3, "best_of": 3}
    plain = client.completions.create(**options)
    shown = client.completions.create(logprobs=0, **options)
    assert [choice.text for choice in plain.choices] == [choice.text for choice in shown.choices]
    assert [choice.logprobs for choice in plain.choices] == [None, None]
    chat: Any = {"model": MODEL, "messages": HELLO, "max_tokens": 5, "seed": 3}
    best = client.chat.completions.create(extra_body={"best_of": 3}, **chat)
    all_three = client.chat.completions.create(n=3, **chat)
    assert best.choices[0].message.content in [each.message.content for each in all_three.choices]
    assert best.choices[0].logprobs is None
    assert best.usage is not None
    assert best.usage.completion_tokens == 15


def test_greedy_continuations_are_equal_and_the_first_is_the_best(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": MODEL, "prompt": STORY, "max_tokens": 6, "temperature": 0}
    alone = client.completions.create(**options).choices[0].text
    best = client.completions.create(n=2, best_of=4, **options)
    assert [choice.text for choice in best.choices] == [alone, alone]


def test_best_of_equal_to_n_streams_by_choice_index(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": MODEL, "prompt": STORY, "max_tokens": 8, "seed": 21, "n": 3, "best_of": 3}
    whole = client.completions.create(**options)
    texts = ["", "", ""]
    for chunk in client.completions.create(stream=True, stream_options={"include_usage": True}, **options):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert len(set(texts)) > 1
    for usage in (chunk.usage, whole.usage):
        assert usage is not None
        assert usage.model_extra is not None
        assert 0 <= usage.model_extra["kv_sharing"] < 1


def test_a_stream_of_what_is_chosen_at_the_end_is_refused(server: ServerProcess) -> None:
    for extra, param in (({"best_of": 2}, "best_of"), ({"use_beam_search": True}, "use_beam_search")):
        with pytest.raises(openai.BadRequestError, match="cannot be streamed") as caught:
            server.client().completions.create(model=MODEL, prompt="a", stream=True, extra_body=extra)
        assert caught.value.param == param


def test_beam_search(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": MODEL, "max_tokens": 6, "n": 2}
    extra = {"use_beam_search": True, "best_of": 4, "length_penalty": 1.0, "early_stopping": "never"}
    reply = client.completions.create(prompt=STORY, extra_body=extra, **options)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert all(choice.text and choice.finish_reason in ("length", "stop") for choice in reply.choices)
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0
    chat = client.chat.completions.create(messages=HELLO, extra_body=extra, **options)
    assert all(choice.message.content for choice in chat.choices)
    server.wait_idle()


def test_cached_tokens_are_reported_and_salts_keep_prefixes_apart(server: ServerProcess) -> None:
    client = server.client()
    prompt = server.post("/tokenize", {"prompt": "A prompt that only this one test sends. " * 6}).json()[
        "tokens"
    ]

    def cached(salt: str, **options: Any) -> int:
        reply = client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=1, extra_body={"cache_salt": salt}, **options
        )
        assert reply.usage is not None
        assert reply.usage.prompt_tokens_details is not None
        assert reply.usage.prompt_tokens == len(prompt)
        return reply.usage.prompt_tokens_details.cached_tokens or 0

    queries = server.metric("vllm:prefix_cache_queries_total")
    hits = server.metric("vllm:prefix_cache_hits_total")
    assert cached("one") == 0
    assert cached("one") == len(prompt) - 1  # the last token is computed: something has to be sampled from
    assert cached("two") == 0
    assert cached("two", n=3) == len(prompt) - 1  # once for the prompt, not once a choice
    assert server.metric("vllm:prefix_cache_queries_total") - queries == 4 * len(prompt)
    assert server.metric("vllm:prefix_cache_hits_total") - hits == 2 * (len(prompt) - 1)
