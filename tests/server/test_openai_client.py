"""The official openai client, unmodified, against a real server with the starter model."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import openai
import pytest

from tests.server.server_process import ServerProcess, sse_events, wait_until

MODEL = "SmolLM2-135M-Instruct"
HELLO: list[Any] = [{"role": "user", "content": "Say hello in one short sentence."}]
CAPITAL = "The capital of France is"


def test_models(server: ServerProcess) -> None:
    client = server.client()
    (model,) = client.models.list().data
    assert MODEL in model.id
    assert client.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another/model")


def test_completion(server: ServerProcess) -> None:
    reply = server.client().completions.create(model=_model(server), prompt=CAPITAL, temperature=0)
    (choice,) = reply.choices
    assert reply.object == "text_completion"
    assert reply.id.startswith("cmpl-")
    assert " Paris" in choice.text
    assert choice.finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 16
    assert reply.usage.prompt_tokens == 5
    assert reply.usage.total_tokens == 21
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens in range(5)  # others may have sent it before


def test_completion_prompts_in_all_four_shapes(server: ServerProcess) -> None:
    client = server.client()
    ids = server.post("/tokenize", {"prompt": CAPITAL}).json()["tokens"]
    other = "Once upon a time"
    other_ids = server.post("/tokenize", {"prompt": other}).json()["tokens"]

    def texts(prompt: Any, **options: Any) -> list[str]:
        reply = client.completions.create(
            model=_model(server), prompt=prompt, temperature=0, max_tokens=6, **options
        )
        assert [choice.index for choice in reply.choices] == list(range(len(reply.choices)))
        return [choice.text for choice in reply.choices]

    alone = texts(CAPITAL) + texts(other)
    assert texts([CAPITAL, other]) == alone
    assert texts(ids) == alone[:1]
    assert texts([ids, other_ids]) == alone
    assert texts([CAPITAL, other], n=2) == [alone[0], alone[0], alone[1], alone[1]]


def test_completion_echo_and_logprobs(server: ServerProcess) -> None:
    client = server.client()
    reply = client.completions.create(
        model=_model(server), prompt=CAPITAL, temperature=0, max_tokens=3, echo=True, logprobs=2
    )
    (choice,) = reply.choices
    assert choice.text.startswith(CAPITAL + " Paris")
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert logprobs.text_offset is not None
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.token_logprobs[0] is None
    assert all(value is not None and value <= 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == len(logprobs.top_logprobs) == 8
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert choice.text[offset : offset + len(token)] == token
    # Greedy tokens are the likeliest of their place.
    for token, top in list(zip(logprobs.tokens, logprobs.top_logprobs, strict=True))[5:]:
        assert max(top, key=lambda each: top[each]) == token
    # Scoring: the prompt's own, without any new token.
    scored = client.completions.create(
        model=_model(server), prompt=CAPITAL, max_tokens=0, echo=True, logprobs=0
    ).choices[0]
    assert scored.text == CAPITAL
    assert scored.finish_reason == "length"
    assert scored.logprobs is not None
    assert scored.logprobs.token_logprobs == pytest.approx(logprobs.token_logprobs[:5], abs=1e-4)


def test_prompt_logprobs_and_token_ids(server: ServerProcess) -> None:
    body = {
        "prompt": CAPITAL,
        "max_tokens": 2,
        "temperature": 0,
        "prompt_logprobs": 1,
        "return_token_ids": True,
        "logprobs": 0,
        "return_tokens_as_token_ids": True,
    }
    choice = server.post("/v1/completions", body).json()["choices"][0]
    assert len(choice["prompt_token_ids"]) == 5
    assert choice["logprobs"]["tokens"] == [f"token_id:{each}" for each in choice["token_ids"]]
    assert choice["prompt_logprobs"][0] is None
    for token_id, place in zip(choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:], strict=True):
        assert place[str(token_id)]["rank"] >= 1
        assert place[str(token_id)]["decoded_token"]


def test_chat(server: ServerProcess) -> None:
    reply = server.client().chat.completions.create(
        model=_model(server), messages=HELLO, temperature=0, max_completion_tokens=24
    )
    (choice,) = reply.choices
    assert reply.object == "chat.completion"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert "<|im_end|>" not in choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None


def test_chat_content_parts_and_continuation(server: ServerProcess) -> None:
    client = server.client()
    text = "Say hello in one short sentence."
    parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    options: Any = {"model": _model(server), "temperature": 0, "max_tokens": 8}
    whole = client.chat.completions.create(messages=HELLO, **options).choices[0].message.content
    assert client.chat.completions.create(messages=parts, **options).choices[0].message.content == whole
    begun = [*HELLO, {"role": "assistant", "content": "Hello, my dear"}]
    continued = client.chat.completions.create(
        messages=begun, extra_body={"continue_final_message": True}, **options
    )
    body = {"messages": begun, "continue_final_message": True}
    tokens = server.post("/tokenize", body).json()["tokens"]
    assert server.post("/detokenize", {"tokens": tokens}).json()["prompt"].endswith("Hello, my dear")
    raw = client.completions.create(prompt=tokens, **options)
    assert continued.choices[0].message.content == raw.choices[0].text


def test_chat_stream_is_the_whole_reply_in_pieces(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": _model(server), "messages": HELLO, "temperature": 0, "max_tokens": 20}
    whole = client.chat.completions.create(**options)
    chunks = list(
        client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_completion_stream_of_several_choices(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {
        "model": _model(server),
        "prompt": [CAPITAL, "Once upon a time"],
        "n": 2,
        "seed": 5,
        "max_tokens": 8,
        "logprobs": 1,
    }
    whole = client.completions.create(**options)
    texts, tokens = [""] * 4, [[] for _ in range(4)]
    finished = set()
    for chunk in client.completions.create(stream=True, **options):
        for choice in chunk.choices:
            assert choice.index not in finished
            texts[choice.index] += choice.text
            if choice.logprobs is not None:
                tokens[choice.index] += choice.logprobs.tokens or []
            if choice.finish_reason:
                finished.add(choice.index)
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices if choice.logprobs]
    assert finished == {0, 1, 2, 3}


def test_the_wire_of_a_stream(server: ServerProcess) -> None:
    body = {
        "messages": HELLO,
        "max_tokens": 4,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "return_token_ids": True,
    }
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60.0) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        events = list(sse_events(response))
    assert events[-1] == "[DONE]"
    objects = [event for event in events if isinstance(event, dict)]
    assert len(objects) == len(events) - 1
    assert objects[0]["prompt_token_ids"]
    assert [each["usage"]["completion_tokens"] for each in objects][-1] == 4
    assert sum(len(choice.get("token_ids", [])) for each in objects for choice in each["choices"]) == 4


def test_chat_logprobs(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": _model(server), "messages": HELLO, "temperature": 0, "max_tokens": 6}
    reply = client.chat.completions.create(logprobs=True, top_logprobs=3, **options)
    (choice,) = reply.choices
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content is not None
    assert len(content) == 6
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token
        assert math.exp(token.logprob) <= 1
        assert bytes(token.bytes or []).decode() == token.token
    streamed = []
    for chunk in client.chat.completions.create(logprobs=True, top_logprobs=3, stream=True, **options):
        if chunk.choices and chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content or []
    assert [token.token for token in streamed] == [token.token for token in content]


def test_stop_strings_never_reach_the_client(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {"model": _model(server), "prompt": "1, 2, 3, 4, 5,", "temperature": 0, "max_tokens": 40}
    reply = client.completions.create(stop=["8, 9", "unseen"], **options)
    (choice,) = reply.choices
    assert choice.text.rstrip() == " 6, 7,"
    assert choice.finish_reason == "stop"
    assert choice.model_extra is not None
    assert choice.model_extra["stop_reason"] == "8, 9"
    pieces = [
        chunk.choices[0].text for chunk in client.completions.create(stop="8, 9", stream=True, **options)
    ]
    assert "".join(pieces) == choice.text
    assert reply.usage is not None
    assert reply.usage.completion_tokens < 40
    kept = client.completions.create(stop="8, 9", extra_body={"include_stop_str_in_output": True}, **options)
    assert kept.choices[0].text.endswith("8, 9")
    server.wait_idle()


def test_the_same_seed_gives_the_same_text_and_n_gives_different_ones(server: ServerProcess) -> None:
    client = server.client()
    options: Any = {
        "model": _model(server),
        "prompt": "Once",
        "max_tokens": 12,
        "temperature": 1.5,
        "extra_body": {"top_k": 40},
    }
    first = client.completions.create(seed=7, n=3, **options)
    again = client.completions.create(seed=7, n=3, **options)
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices]
    assert len(set(texts)) == 3
    assert client.completions.create(seed=9, **options).choices[0].text == texts[2]
    assert client.completions.create(seed=8, **options).choices[0].text == texts[1]


def test_unknown_extension_fields_are_refused_by_name(server: ServerProcess) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().completions.create(
            model=_model(server), prompt="a", extra_body={"no_such_field": True}
        )
    assert caught.value.param == "no_such_field"
    assert caught.value.type == "invalid_request_error"


def test_fields_without_effect_are_accepted(server: ServerProcess) -> None:
    reply = server.client().chat.completions.create(
        model=_model(server),
        messages=HELLO,
        max_tokens=2,
        user="somebody",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
        response_format={"type": "text"},
    )
    assert reply.choices[0].finish_reason == "length"


def test_errors_carry_openais_shape(server: ServerProcess) -> None:
    client = server.client()
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="no-such-model", prompt="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model=_model(server), prompt="a", max_tokens=10**9)
    assert too_long.value.code == "context_length_exceeded"
    assert "1000000000" in str(too_long.value)


async def test_many_streams_at_once_with_the_async_client(server: ServerProcess) -> None:
    client = server.async_client()
    prompts = [f"The number {number} is" for number in range(32)]

    async def complete(prompt: str, max_tokens: int) -> str:
        stream = await client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=max_tokens, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    together = await asyncio.gather(*[complete(prompt, 4 + i % 5) for i, prompt in enumerate(prompts)])
    for index in (0, 13, 31):
        assert together[index] == await complete(prompts[index], 4 + index % 5)


def test_request_ids_are_ours_with_the_clients_as_suffix(server: ServerProcess) -> None:
    body = {"prompt": "a", "max_tokens": 1}
    headers = {"X-Request-Id": "trace/42 <script>" + "x" * 500}
    replies = [
        httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=60.0) for _ in range(2)
    ]
    ids = [reply.json()["id"] for reply in replies]
    assert ids[0] != ids[1]
    assert ids[0].startswith("cmpl-")
    assert "-trace42script" in ids[0]
    assert "<" not in ids[0]
    assert len(ids[0]) < 110
    assert replies[0].headers["x-request-id"] == ids[0]


def test_tokenize_and_detokenize(server: ServerProcess) -> None:
    text = "Grüße, Welt! 🙂"
    reply = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == 8192
    assert server.post("/detokenize", {"tokens": reply["tokens"]}).json() == {"prompt": text}
    chat = server.post("/tokenize", {"messages": HELLO}).json()
    rendered = server.post("/detokenize", {"tokens": chat["tokens"]}).json()["prompt"]
    assert rendered.endswith("<|im_start|>assistant\n")
    assert "Say hello" in rendered


def test_metrics_count_what_happened(server: ServerProcess) -> None:
    server.wait_idle()
    before = {
        name: server.metric(name)
        for name in (
            "vllm:generation_tokens_total",
            "vllm:prompt_tokens_total",
            "vllm:time_to_first_token_seconds_count",
            "vllm:inter_token_latency_seconds_count",
            "vllm:e2e_request_latency_seconds_count",
            "vllm:request_queue_time_seconds_count",
        )
    }
    server.post("/v1/completions", {"prompt": CAPITAL, "max_tokens": 6, "ignore_eos": True})
    wait_until(lambda: server.metric("octavo:kv_blocks_used") == 0, 5.0)
    after = {name: server.metric(name) - value for name, value in before.items()}
    assert list(after.values()) == [6, 5, 1, 5, 1, 1]
    assert server.metric("vllm:request_success_total", finished_reason="length") >= 1
    assert server.metric("vllm:cache_config_info", block_size="16") == 1


def _model(server: ServerProcess) -> str:
    return str(server.get("/v1/models").json()["data"][0]["id"])
