"""Bad requests against a real server: each is refused by field, and none disturbs a good one."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest

from tests.server.server_process import ServerProcess

MESSAGES = [{"role": "user", "content": "hi"}]
BOTH: list[tuple[dict[str, Any], str]] = [
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 2**31}, "n"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"min_tokens": 20, "max_tokens": 10}, "min_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 100}, "stop"),
    ({"stop": ["a" * 5000]}, "stop"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"stop_token_ids": [10**6]}, "stop_token_ids"),
    ({"stop_token_ids": [2**70]}, "stop_token_ids"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"allowed_token_ids": [999999]}, "allowed_token_ids"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"bad_words": [""]}, "bad_words"),
    ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"guided_json": {}}, "guided_json"),
    ({"structured_outputs": {"json": {}}}, "structured_outputs"),
    ({"best_of": 0}, "best_of"),
    ({"best_of": 2, "n": 3}, "best_of"),
    ({"best_of": 3, "stream": True}, "best_of"),
    ({"use_beam_search": True, "stream": True}, "use_beam_search"),
    ({"use_beam_search": True, "temperature": 0.5}, "temperature"),
    ({"use_beam_search": True, "seed": 5}, "seed"),
    ({"use_beam_search": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    ({"use_beam_search": 1}, "use_beam_search"),
    ({"length_penalty": 2.0}, "length_penalty"),
    ({"early_stopping": True}, "early_stopping"),
    ({"early_stopping": "soon", "use_beam_search": True}, "early_stopping"),
    ({"priority": 1}, "priority"),
    ({"priority": 1.5}, "priority"),
    ({"cache_salt": ""}, "cache_salt"),
    ({"cache_salt": "a" * 300}, "cache_salt"),
    ({"user": ["a"]}, "user"),
    ({"deadline_seconds": 0}, "deadline_seconds"),
    ({"deadline_seconds": "soon"}, "deadline_seconds"),
    ({"queue_timeout_seconds": -1}, "queue_timeout_seconds"),
    ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"zzz": 1}, "zzz"),
]
COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [999999]}, "prompt"),
    ({"prompt": [1.5]}, "prompt"),
    ({"prompt": ["a"] * 2000}, "prompt"),
    ({"prompt": ["a"] * 100, "n": 100}, "prompt"),
    ({"prompt": ["a"] * 100, "best_of": 100}, "prompt"),
    ({"use_beam_search": True, "echo": True, "logprobs": 1}, "echo"),
    ({"prompt": "a " * 20000}, "prompt"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"suffix": "b"}, "suffix"),
    ({"prompt_embeds": "x"}, "prompt_embeds"),
    ({"messages": MESSAGES}, "messages"),
]
CHAT: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "boss", "content": "a"}]}, "messages"),
    ({"messages": [{"role": "user", "content": None}]}, "messages"),
    ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "b"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 3}, "logprobs"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"a": json.loads("[" * 900 + "]" * 900)}}, "chat_template_kwargs"),
    ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
    ({"prompt": "a"}, "prompt"),
]
CASES = [
    *[("/v1/completions", {"prompt": "a", **fields}, param) for fields, param in BOTH + COMPLETIONS],
    *[("/v1/chat/completions", {"messages": MESSAGES, **fields}, param) for fields, param in BOTH + CHAT],
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"),
    ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
    ("/detokenize", {"tokens": [999999]}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens"),
    ("/detokenize", {}, "tokens"),
]


@pytest.mark.parametrize(("path", "body", "param"), CASES, ids=lambda value: str(value)[:60])
def test_a_bad_field_is_refused_by_name(
    server: ServerProcess, path: str, body: dict[str, Any], param: str
) -> None:
    response = server.post(path, body)
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert "Traceback" not in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status"),
    [
        ("POST", "/v1/completions", b"{", {"Content-Type": "application/json"}, 400),
        ("POST", "/v1/completions", b'{"prompt": "a"}', {"Content-Type": "text/plain"}, 400),
        ("POST", "/v1/completions", b'{"prompt": "a"}', {}, 400),
        ("POST", "/v1/completions", b"[" * 10**6, {"Content-Type": "application/json"}, 400),
        ("POST", "/v1/completions", b"x" * (17 * 2**20), {"Content-Type": "application/json"}, 413),
        (
            "POST",
            "/v1/completions",
            b'{"prompt": "a"}',
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            400,
        ),
        ("POST", "/no/such/route", b"", {}, 404),
        ("GET", "/v1/completions", b"", {}, 405),
        ("DELETE", "/v1/models", b"", {}, 405),
        ("GET", "/v1/completions/", b"", {}, 404),
    ],
)
def test_wrong_transport_has_openais_error_body(
    server: ServerProcess, method: str, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    response = httpx.request(method, server.url + path, content=content, headers=headers, timeout=30.0)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_without_length_is_cut_off_at_the_limit(server: ServerProcess) -> None:
    num_sent = 0

    def endless() -> Any:
        nonlocal num_sent
        while num_sent < 400 * 2**20:
            num_sent += 2**20
            yield b" " * 2**20

    try:
        status = httpx.post(
            server.url + "/v1/completions",
            content=endless(),
            headers={"Content-Type": "application/json"},
            timeout=30.0,
        ).status_code
        assert status == 413
    except httpx.TransportError:
        pass  # it answered and closed while we were still sending
    assert num_sent < 100 * 2**20
    assert server.get("/ready").status_code == 200


def test_bad_requests_do_not_disturb_a_good_one(server: ServerProcess) -> None:
    good_body = {"prompt": "The quick brown", "max_tokens": 48, "temperature": 0, "ignore_eos": True}
    alone = server.post("/v1/completions", good_body).json()["choices"][0]["text"]
    beside: list[str] = []
    good = threading.Thread(
        target=lambda: beside.append(server.post("/v1/completions", good_body).json()["choices"][0]["text"])
    )
    good.start()
    for path, body, _ in CASES[::7]:
        assert server.post(path, body).status_code == 400
    good.join()
    assert beside == [alone]
    server.wait_idle()
