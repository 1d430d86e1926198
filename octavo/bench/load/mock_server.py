"""A server that answers as it is told: known times to the first token and between tokens.

Speaks just enough of OpenAI's completions for load generators, generates nothing, and keeps the time at
which it really sent each token: truth is what was sent, not what was planned.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass

_MODEL = "mock"


@dataclass(frozen=True, kw_only=True, slots=True)
class MockTiming:
    """What every answer is like.

    Attributes:
        jitter: gaps are drawn evenly from (1 - jitter) to (1 + jitter) times `gap_ms`.
        tokens_per_chunk: as many tokens come in one event (merged chunks).
    """

    ttft_ms: float
    gap_ms: float
    jitter: float = 0.0
    tokens_per_chunk: int = 1


@dataclass(slots=True)
class SentRequest:
    """Times of one answer, in time.monotonic_ns()."""

    received_ns: int
    sent_ns: list[int]


class MockServer:
    """Listens on a free port of 127.0.0.1 while it is entered."""

    def __init__(self, timing: MockTiming, *, seed: int = 0) -> None:
        self._timing = timing
        self._gaps = random.Random(f"{seed}/gaps")
        self._server: asyncio.Server | None = None
        self.sent: list[SentRequest] = []

    async def __aenter__(self) -> MockServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        """Raises RuntimeError: it has not been entered."""
        if self._server is None:
            raise RuntimeError("the server does not listen")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                received_ns = time.monotonic_ns()
                length = _content_length(head)
                body = await reader.readexactly(length)
                if head.startswith(b"POST") and b"/completions" in head.split(b"\r\n", 1)[0]:
                    await self._answer(writer, json.loads(body), received_ns)
                elif b"/models" in head.split(b"\r\n", 1)[0]:
                    models = {"object": "list", "data": [{"id": _MODEL, "object": "model"}]}
                    _write_reply(writer, 200, json.dumps(models).encode())
                else:
                    found = b"/health" in head.split(b"\r\n", 1)[0]
                    _write_reply(writer, 200 if found else 404, b"{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, object], received_ns: int) -> None:
        num_tokens = int(str(body.get("max_tokens") or body.get("max_completion_tokens") or 16))
        is_chat = "messages" in body
        usage = {"prompt_tokens": _num_prompt_tokens(body), "completion_tokens": num_tokens}
        usage["total_tokens"] = sum(usage.values())
        record = SentRequest(received_ns, [])
        self.sent.append(record)
        if not body.get("stream"):
            await asyncio.sleep((self._timing.ttft_ms + self._timing.gap_ms * (num_tokens - 1)) / 1e3)
            choice = _choice(is_chat, " a" * num_tokens, "length", key="message")
            _write_reply(writer, 200, json.dumps(_reply([choice], usage)).encode())
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        due_seconds = received_ns / 1e9 + self._timing.ttft_ms / 1e3
        size = self._timing.tokens_per_chunk
        for first in range(0, num_tokens, size):
            await _sleep_until(due_seconds)
            count = min(size, num_tokens - first)
            reason = "length" if first + count == num_tokens else None
            _write_event(writer, _reply([_choice(is_chat, " a" * count, reason, key="delta")], None))
            record.sent_ns.append(time.monotonic_ns())
            due_seconds += size * self._draw_gap_ms() / 1e3
        _write_event(writer, _reply([], usage))
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _draw_gap_ms(self) -> float:
        jitter = self._timing.jitter
        return self._timing.gap_ms * self._gaps.uniform(1 - jitter, 1 + jitter)


async def _sleep_until(due_seconds: float) -> None:
    """The loop's timers may fire a millisecond late, which the next token's time does not inherit."""
    wait_seconds = due_seconds - time.monotonic_ns() / 1e9
    if wait_seconds > 0:
        await asyncio.sleep(wait_seconds)


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def _num_prompt_tokens(body: dict[str, object]) -> int:
    prompt = body.get("prompt")
    return len(prompt) if isinstance(prompt, list) else len(str(prompt or body.get("messages")).split())


def _choice(is_chat: bool, text: str, reason: str | None, *, key: str) -> dict[str, object]:
    content = {key: {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return {"index": 0, "finish_reason": reason, "logprobs": None, **content}


def _reply(choices: list[dict[str, object]], usage: dict[str, int] | None) -> dict[str, object]:
    return {
        "id": "cmpl-mock",
        "object": "text_completion",
        "created": 0,
        "model": _MODEL,
        "choices": choices,
        "usage": usage,
    }


def _write_reply(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _write_event(writer: asyncio.StreamWriter, content: dict[str, object]) -> None:
    data = b"data: " + json.dumps(content).encode() + b"\n\n"
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def _serve_until_eof(timing: MockTiming) -> None:
    """The address on the first line of stdout; when stdin ends, what was sent, as JSON."""
    async with MockServer(timing) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps([asdict(one) for one in server.sent]), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve_until_eof(MockTiming(**json.loads(sys.argv[1]))))
