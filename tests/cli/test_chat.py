"""`octavo chat` with piped input: a model loaded here, and a server over HTTP."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from octavo import LLM, SamplingParams

ARGUMENTS = ["--temperature", "0", "--max-tokens", "5"]


@pytest.fixture
def say(run, monkeypatch):
    """Run `octavo chat ARGUMENTS...` with these lines as input."""

    def run_chat(lines: str, *arguments: str):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return run("chat", *arguments, *ARGUMENTS)

    return run_chat


@pytest.fixture(scope="module")
def answers(chat_model) -> Iterator[object]:
    """What the tiny model answers to a list of messages."""
    model, _, template, *_ = chat_model
    with LLM(model, chat_template=template, kv_cache_memory="1MB") as llm:

        def answer(*messages: tuple[str, str]) -> str:
            conversation = [{"role": role, "content": content} for role, content in messages]
            (output,) = llm.chat(conversation, SamplingParams(temperature=0.0, max_tokens=5))
            return output.outputs[0].text

        yield answer


def test_each_line_is_a_message_and_the_history_counts(say, chat_model, answers):
    first = answers(("user", "hello"))
    second = answers(("user", "hello"), ("assistant", first), ("user", "and now?"))
    assert say("hello\n\nand now?\n", *chat_model) == (0, f"{first}\n{second}\n", "")


def test_commands(say, chat_model, answers):
    fresh = answers(("system", "Be brief."), ("user", "hello"))
    lines = "hello\n/system Be brief.\nhello\n/clear\nhello\n/exit\nnever said\n"
    exit_code, out, err = say(lines, *chat_model)
    assert (exit_code, err) == (0, "")
    assert out == f"{answers(('user', 'hello'))}\n{fresh}\n{fresh}\n"


def test_wrong_commands_and_help(say, chat_model):
    exit_code, out, err = say("/help\n/frobnicate\n/system\n", *chat_model)
    assert exit_code == 1
    assert "/clear" in out
    assert err.splitlines() == [
        "octavo: unknown command /frobnicate; /help lists them",
        "octavo: /system needs a text: /system You are a pirate.",
    ]


def test_a_message_that_is_refused_is_forgotten(say, chat_model, answers):
    exit_code, out, err = say("x" * 600 + "\nhello\n", *chat_model)
    assert exit_code == 1
    assert out == answers(("user", "hello")) + "\n"
    assert "512" in err


def test_a_model_without_a_template_is_refused(say, tiny_model):
    exit_code, _, err = say("hello\n", str(tiny_model), "--kv-cache-memory", "1MB")
    assert exit_code == 2
    assert "has no chat template; give one with --chat-template" in err


class OpenAiStub(BaseHTTPRequestHandler):
    """The wire side only: what an OpenAI server sends, and a record of what it was sent."""

    received: list[dict[str, object]]
    events: list[bytes]

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": [{"id": "stub"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.append(body | {"path": self.path, "key": self.headers["Authorization"]})
        if body["messages"][-1]["content"] == "refuse":
            self._send(400, b'{"error": {"message": "not that", "param": "messages"}}')
        else:
            self._send(200, b"".join(b"data: " + event + b"\n\n" for event in self.events))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[tuple[str, type[OpenAiStub]]]:
    delta = b'{"choices": [{"index": 0, "delta": {"content": "%s"}}]}'
    handler = type("Stub", (OpenAiStub,), {})
    handler.received = []
    handler.events = [delta % b"one ", delta % b"two", b'{"choices": [], "usage": {}}', b"[DONE]"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_is_talked_to_over_http(say, stub, monkeypatch):
    url, handler = stub
    monkeypatch.setenv("OCTAVO_API_KEY", "secret")
    assert say("a\nb\n", "--url", url + "/v1/", "--system", "S") == (0, "one two\none two\n", "")
    assert [message["content"] for message in handler.received[1]["messages"]] == ["S", "a", "one two", "b"]
    assert handler.received[0] == {
        "path": "/v1/chat/completions",
        "key": "Bearer secret",
        "model": "stub",
        "stream": True,
        "temperature": 0.0,
        "max_tokens": 5,
        "messages": handler.received[0]["messages"],
    }


def test_a_servers_refusals_and_failures_are_told(say, stub):
    url, handler = stub
    exit_code, out, err = say("refuse\nfine\n", "--url", url)
    assert (exit_code, out, err) == (1, "one two\n", "octavo: not that\n")
    assert [message["content"] for message in handler.received[1]["messages"]] == ["fine"]
    handler.events = handler.events[:1]
    _, out, err = say("cut\n", "--url", url)
    assert out == "one "
    assert "broke off in the middle" in err
    handler.events = [b'{"error": {"message": "it broke"}}']
    assert say("err\n", "--url", url)[2] == "octavo: it broke\n"


def read_until(terminal: int, pattern: str, timeout_seconds: float = 30.0) -> str:
    """What a terminal shows, up to a match of the pattern."""
    shown = ""
    deadline = time.monotonic() + timeout_seconds
    while re.search(pattern, shown) is None:
        is_there, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert is_there, shown
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_on_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_leaves():
    terminal, device = pty.openpty()
    # The starter model: a tiny one's whole context is full before the signal comes.
    command = [sys.executable, "-m", "octavo.cli.main", "chat", "--ignore-eos", "--kv-cache-memory", "512MB"]
    with subprocess.Popen(
        command, stdin=device, stdout=device, stderr=device, start_new_session=True
    ) as process:
        os.close(device)
        try:
            read_until(terminal, "> ")
            os.write(terminal, b"hello\n")
            # The answer's first letter, past the terminal's own control sequences: before that, the signal
            # might still find the prompt.
            read_until(terminal, r"hello\r\n(\x1b\[[0-9;?]*[A-Za-z]|\s)*[^\x1b\s]")
            process.send_signal(signal.SIGINT)
            # The answer may hold a "> " of its own: only after the mark is it the prompt.
            read_until(terminal, r" \.\.\.(\r\n)+> ")
            os.write(terminal, b"/help\n")
            read_until(terminal, r"/exit[^>]*> ")
            os.write(terminal, b"\x04")
            assert process.wait(20) == 0
        finally:
            process.kill()  # else a failure above would wait for the program for ever
    os.close(terminal)
