"""Deadlines, queue timeouts and queue limits of a real server, with the official openai client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import openai
import pytest

from tests.server.server_process import ServerProcess, running_server, sse_events, wait_until

MODEL = "SmolLM2-135M-Instruct"
LONG: dict[str, Any] = {
    "model": MODEL,
    "prompt": "Once",
    "max_tokens": 1200,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture(scope="module")
def narrow() -> Iterator[ServerProcess]:
    """A server that runs one sequence at a time and lets few tokens wait, not long."""
    flags = ("--max-num-seqs", "1", "--max-queued-tokens", "40", "--queue-timeout", "20")
    with running_server(*flags, "--policy", "priority") as server:
        yield server


@contextmanager
def occupied(server: ServerProcess) -> Iterator[None]:
    """While one long request has the only place."""
    with closing(server.client().completions.create(stream=True, **LONG)) as stream:
        next(iter(stream))
        yield
    server.wait_idle()


def test_a_deadline_is_a_504_and_in_a_stream_an_event(server: ServerProcess) -> None:
    late = {**LONG, "extra_body": {"ignore_eos": True, "deadline_seconds": 0.3}}
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().completions.create(**late)
    assert caught.value.status_code == 504
    assert caught.value.code == "deadline_exceeded"
    body = {"prompt": "Once", "max_tokens": 1200, "ignore_eos": True, "deadline_seconds": 1.0, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60.0) as response:
        assert response.status_code == 200
        events = list(sse_events(response))
    assert len(events) > 2
    assert events[-1] == "[DONE]"
    last = events[-2]
    assert isinstance(last, dict)
    assert last["error"]["code"] == "deadline_exceeded"
    assert server.metric("vllm:request_success_total", finished_reason="deadline") >= 2
    server.wait_idle()


def test_waiting_too_long_is_a_429_with_the_time_to_come_back(narrow: ServerProcess) -> None:
    with occupied(narrow):
        for stream in (False, True):  # nothing was sent yet, so that a stream has a status too
            body = {"prompt": "a", "max_tokens": 1, "queue_timeout_seconds": 0.2, "stream": stream}
            response = narrow.post("/v1/completions", body)
            assert response.status_code == 429
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert response.json()["error"]["code"] == "rate_limit_exceeded"
        assert narrow.metric("vllm:admission_rejections_total", reason="queue_timeout") == 2


def test_the_server_bounds_what_a_client_may_wait(narrow: ServerProcess) -> None:
    response = narrow.post("/v1/completions", {"prompt": "a", "queue_timeout_seconds": 21})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "queue_timeout_seconds"


def test_more_tokens_than_may_wait_are_refused_until_the_queue_moves(narrow: ServerProcess) -> None:
    prompt = list(range(500, 530))
    answers: list[int] = []

    def send() -> None:
        answers.append(narrow.post("/v1/completions", {"prompt": prompt, "max_tokens": 1}).status_code)

    with occupied(narrow):
        waiting = threading.Thread(target=send)
        waiting.start()
        wait_until(lambda: narrow.metric("octavo:queued_prompt_tokens") == 30, 10.0)
        refused = narrow.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "30 tokens wait" in refused.json()["error"]["message"]
        assert narrow.metric("vllm:admission_rejections_total", reason="queue_full") == 1
    waiting.join()
    assert answers == [200]
    send()
    assert answers == [200, 200]


def test_priority_is_taken_where_it_counts(narrow: ServerProcess) -> None:
    reply = narrow.client().completions.create(
        model=MODEL, prompt="a", max_tokens=1, user="alice", extra_body={"priority": -5}
    )
    assert reply.choices[0].finish_reason == "length"
