"""A real server in a process of its own, on a free port: what the tests of this folder talk to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil


def serve_flags(*flags: str, port: int = 0) -> list[str]:
    """Flags of `octavo serve` with small memory, one thread and a free port; later ones win."""
    return ["--port", str(port), "--kv-cache-memory", "64MB", "--num-threads", "1", *flags]


class ServerProcess:
    """A running server; `lines` is what it has printed so far."""

    def __init__(self, flags: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "octavo.cli.main", "serve", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def url(self) -> str:
        match = re.search(r"ready at (http://\S+)", self.output)
        assert match is not None, self.output
        return match[1]

    @property
    def engine_pid(self) -> int:
        (child,) = psutil.Process(self.process.pid).children()
        return child.pid

    def wait_ready(self, timeout_seconds: float = 60.0) -> ServerProcess:
        wait_until(lambda: "ready at" in self.output or self.process.poll() is not None, timeout_seconds)
        assert "ready at" in self.output, self.output
        return self

    def wait_exit(self, timeout_seconds: float = 20.0) -> int:
        code = self.process.wait(timeout_seconds)
        self._reader.join(5.0)
        return code

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10.0)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60.0)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry the labels."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            if line.startswith((name + "{", name + " ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rpartition(" ")[2])
        return total

    def wait_idle(self) -> None:
        """Until nothing runs and all blocks are free."""
        wait_until(lambda: self.get("/load").json()["server_load"] == 0, 30.0)
        wait_until(lambda: self.metric("octavo:kv_blocks_used") == 0, 10.0)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self._reader.join(5.0)
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                self.lines.append(line)


@contextlib.contextmanager
def running_server(*flags: str) -> Iterator[ServerProcess]:
    """A ready server for the length of a `with` block."""
    server = ServerProcess(serve_flags(*flags))
    try:
        yield server.wait_ready()
    finally:
        server.kill()


def wait_until(condition: Any, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s"
        time.sleep(0.02)


def sse_events(response: httpx.Response) -> Iterator[dict[str, Any] | str]:
    """Events of a stream: decoded objects, and the text `[DONE]`."""
    for line in response.iter_lines():
        if line:
            assert line.startswith("data: "), line
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)
