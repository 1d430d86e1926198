"""A server's life: starting, idling, losing clients, draining, hanging and dying, with real processes."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
import time
from typing import Any

import httpx
import psutil
import pytest

from tests.server.server_process import (
    ServerProcess,
    running_server,
    serve_flags,
    sse_events,
    wait_until,
)

LONG: dict[str, Any] = {
    "prompt": "Once upon a time",
    "max_tokens": 600,
    "ignore_eos": True,
    "stream": True,
}


class StreamInBackground:
    """A streamed completion read by a thread; `events` is what has come."""

    def __init__(self, server: ServerProcess, **fields: Any) -> None:
        self.events: list[dict[str, Any] | str] = []
        self.fault: Exception | None = None
        self._url = server.url
        self._body = {**LONG, **fields}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: len(self.events) > 2 or not self._thread.is_alive(), 30.0)

    def join(self) -> list[dict[str, Any] | str]:
        self._thread.join(60.0)
        assert not self._thread.is_alive()
        return self.events

    def _read(self) -> None:
        try:
            with httpx.stream(
                "POST", f"{self._url}/v1/completions", json=self._body, timeout=60.0
            ) as response:
                for event in sse_events(response):
                    self.events.append(event)
        except httpx.HTTPError as error:
            self.fault = error


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_gives_its_blocks_back_at_once(server: ServerProcess, stream: bool) -> None:
    server.wait_idle()
    aborts_before = server.metric("vllm:request_success_total", finished_reason="abort")
    steps_before = server.metric("octavo:steps_total")
    body = {**LONG, "stream": stream, "n": 2}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30.0)
    connection.request(
        "POST", "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    wait_until(lambda: server.metric("octavo:steps_total") > steps_before + 5, 30.0)
    steps_at_leave, blocks_at_leave = _steps_and_blocks(server)
    assert blocks_at_leave > 0
    connection.close()
    while (seen := _steps_and_blocks(server))[1] > 0:
        assert seen[0] - steps_at_leave < 20
    # Two steps, and those that ran while the counter was read before and after.
    assert seen[0] - steps_at_leave <= 5
    assert server.metric("vllm:request_success_total", finished_reason="abort") == aborts_before + 2


def test_an_idle_server_uses_no_cpu(server: ServerProcess) -> None:
    server.wait_idle()
    processes = [psutil.Process(server.process.pid), psutil.Process(server.engine_pid)]
    time.sleep(0.3)
    before = [process.cpu_times() for process in processes]
    time.sleep(2.0)
    used = [
        after.user + after.system - start.user - start.system
        for start, after in zip(before, [process.cpu_times() for process in processes], strict=True)
    ]
    assert max(used) <= 0.02, used


def test_health_of_an_idle_server(server: ServerProcess) -> None:
    for path in ("/health", "/ready", "/live", "/ping", "/", "/version", "/load"):
        assert server.get(path).status_code == 200, path
    assert server.get("/ready").json()["status"] == "ready"


def test_while_it_loads_the_server_is_live_but_not_ready() -> None:
    server = ServerProcess(serve_flags(port=(port := _free_port())))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _status(url + "/live") == 200, 30.0)
        ready = _status(url + "/ready")
        refused = httpx.post(url + "/v1/completions", json={"prompt": "a"}, timeout=10.0)
        if "ready at" not in server.output:
            assert ready == 503
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert refused.json()["error"]["type"] == "service_unavailable_error"
        server.wait_ready()
        assert _status(url + "/ready") == 200
        started = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.wait_exit() == 0
        assert time.monotonic() - started < 3.0
    finally:
        server.kill()


def test_sigterm_lets_streams_finish_and_exits_with_0() -> None:
    with running_server() as server:
        engine_pid = server.engine_pid
        stream = StreamInBackground(server, max_tokens=60)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/ready").status_code == 503, 2.0)
        assert server.get("/live").status_code == 200
        refused = server.post("/v1/completions", {"prompt": "a"})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        events = stream.join()
        assert events[-1] == "[DONE]"
        assert not any("error" in event for event in events if isinstance(event, dict))
        assert server.wait_exit() == 0
        assert not psutil.pid_exists(engine_pid)


def test_a_drain_past_its_time_ends_streams_with_an_error_event() -> None:
    with running_server("--drain-timeout", "0.3") as server:
        stream = StreamInBackground(server)
        server.process.send_signal(signal.SIGTERM)
        events = stream.join()
        assert events[-1] == "[DONE]"
        last = events[-2]
        assert isinstance(last, dict)
        assert "shut down" in last["error"]["message"]
        assert server.wait_exit() == 0


def test_a_second_signal_ends_at_once() -> None:
    with running_server() as server:
        engine_pid = server.engine_pid
        StreamInBackground(server)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGINT)
        assert server.wait_exit(3.0) == 130
        wait_until(lambda: not psutil.pid_exists(engine_pid), 3.0)


def test_a_killed_engine_is_told_to_every_client_and_ends_the_server_with_1() -> None:
    with running_server() as server:
        streams = [StreamInBackground(server) for _ in range(2)]
        psutil.Process(server.engine_pid).kill()
        for stream in streams:
            events = stream.join()
            assert events[-1] == "[DONE]"
            last = events[-2]
            assert isinstance(last, dict)
            assert last["error"]["type"] == "server_error"
        assert server.wait_exit() == 1
        errors = [line for line in server.lines if line.startswith("octavo: error:")]
        assert len(errors) == 1
        assert "SIGKILL" in errors[0]
        assert "Traceback" not in server.output


def test_a_killed_front_takes_its_engine_along() -> None:
    with running_server() as server:
        engine_pid = server.engine_pid
        server.process.kill()
        wait_until(lambda: not psutil.pid_exists(engine_pid), 5.0)


def test_a_stopped_engine_is_not_ready_within_two_seconds() -> None:
    with running_server() as server:
        stream = StreamInBackground(server, max_tokens=80)
        engine = psutil.Process(server.engine_pid)
        engine.suspend()
        stopped = time.monotonic()
        wait_until(lambda: server.get("/ready").status_code == 503, 2.0)
        assert time.monotonic() - stopped < 2.0
        assert server.get("/ready").json()["status"] == "hung"
        assert server.get("/health").status_code == 503
        assert server.get("/live").status_code == 200
        engine.resume()
        wait_until(lambda: server.get("/ready").status_code == 200, 5.0)
        assert stream.join()[-1] == "[DONE]"


def test_a_full_queue_is_refused_with_429_but_stays_ready() -> None:
    with running_server("--max-num-seqs", "1", "--max-queued-requests", "1") as server:
        running = StreamInBackground(server, max_tokens=400)  # for seconds, on a fast machine too
        waiting = [
            threading.Thread(target=server.post, args=("/v1/completions", {"prompt": "a"}), daemon=True)
            for _ in range(2)
        ]
        for thread in waiting:
            thread.start()
            time.sleep(0.3)
        refused = server.post("/v1/completions", {"prompt": "a"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert server.get("/ready").status_code == 200
        assert running.join()[-1] == "[DONE]"
        for thread in waiting:
            thread.join(30.0)


def test_a_key_guards_everything_but_probes() -> None:
    with running_server("--api-key", "secret key", "--served-model-name", "m") as server:
        for path in ("/health", "/ready", "/live", "/ping", "/metrics"):
            assert server.get(path).status_code == 200
        for path in ("/v1/models", "/version", "/openapi.json", "/no/such/route"):
            response = server.get(path)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        for value in ("Bearer wrong", "Bearer", "Basic secret key", "secret key", "Bearer secret keyy"):
            response = httpx.get(server.url + "/v1/models", headers={"Authorization": value})
            assert response.status_code == 401, value
        for value in ("Bearer secret key", "bearer secret key"):
            response = httpx.get(server.url + "/v1/models", headers={"Authorization": value})
            assert response.json()["data"][0]["id"] == "m"
        assert "secret" not in " ".join(psutil.Process(server.engine_pid).cmdline())


def test_a_bad_model_and_a_taken_port_end_with_one_line_and_2(tmp_path: Any) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    for model in (broken, tmp_path / "none"):
        server = ServerProcess(serve_flags(str(model)))
        assert server.wait_exit() == 2
        assert len(server.lines) == 1, server.output
        assert server.output.startswith("octavo: error: ")
        server.kill()
    port = _free_port()
    with running_server("--port", str(port)):
        server = ServerProcess(serve_flags(port=port))
        assert server.wait_exit() == 2
        assert str(port) in server.output
        server.kill()


def _steps_and_blocks(server: ServerProcess) -> tuple[float, float]:
    """Forward passes so far and KV blocks in use, of one moment."""
    page = server.get("/metrics").text
    steps = re.search(r"^octavo:steps_total{.*} (\S+)$", page, re.MULTILINE)
    blocks = re.search(r"^octavo:kv_blocks_used{.*} (\S+)$", page, re.MULTILINE)
    assert steps is not None
    assert blocks is not None
    return float(steps[1]), float(blocks[1])


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5.0).status_code
    except httpx.TransportError:
        return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
