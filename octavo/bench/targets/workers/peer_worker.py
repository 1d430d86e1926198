"""Runs one peer engine for a benchmark: commands come as JSON lines on stdin, events go to stdout.

Runs under the peer's own Python: imports the standard library and the module that it is told to.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import time
from typing import Any, Protocol

# (request id, tokens that came, whether it has ended)
Emit = Any


class PeerEngine(Protocol):
    """What the module of a peer must define under this name of its own: `Engine`."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Load the model. `options`: model, num_threads, max_num_seqs, max_model_len, kv_bytes ..."""

    def describe(self) -> dict[str, Any]:
        """Fields of a TargetDescription, as far as they are known, and `abilities`."""
        ...

    def add(self, request_id: str, prompt_token_ids: list[int], num_output_tokens: int) -> None: ...

    def step(self, emit: Emit) -> None:
        """Go on for a while: emit(request_id, token_ids, has_ended) as tokens come."""

    def stats(self) -> dict[str, float]: ...


class Worker:
    """One engine and its conversation with the benchmark."""

    def __init__(self, engine: PeerEngine, out: Any, commands: queue.Queue[dict[str, Any] | None]) -> None:
        self._engine, self._out, self._commands = engine, out, commands
        self._live: set[str] = set()
        self._chunks: dict[str, list[list[Any]]] | None = None

    def run(self) -> None:
        """Until stdin ends, or a command to stop comes."""
        while True:
            try:
                command = self._commands.get(block=not self._live)
            except queue.Empty:
                self._engine.step(self._emit)
                continue
            if command is None or command["op"] == "stop":
                return
            self._obey(command)

    def _obey(self, command: dict[str, Any]) -> None:
        if command["op"] == "generate":
            self._add(command["request"])
        elif command["op"] == "batch":
            self._run_batch(command["requests"])
        elif command["op"] == "stats":
            self._tell({"event": "stats", "stats": self._engine.stats()})

    def _add(self, request: dict[str, Any]) -> None:
        self._live.add(request["id"])
        self._engine.add(request["id"], request["prompt"], request["num_output_tokens"])

    def _run_batch(self, requests: list[dict[str, Any]]) -> None:
        """Everything to the end with nothing written meanwhile: only the engine's work is timed."""
        self._chunks = {request["id"]: [] for request in requests}
        for request in requests:
            self._add(request)
        while self._live:
            self._engine.step(self._emit)
        self._tell({"event": "batch", "chunks": self._chunks})
        self._chunks = None

    def _emit(self, request_id: str, token_ids: list[int], has_ended: bool) -> None:
        now_ns = time.monotonic_ns()
        if has_ended:
            self._live.discard(request_id)
        if self._chunks is not None:
            if token_ids:
                self._chunks[request_id].append([now_ns, token_ids])
        else:
            self._tell({"event": "tokens", "id": request_id, "token_ids": token_ids, "ended": has_ended})

    def _tell(self, event: dict[str, Any]) -> None:
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()


def _read_commands(commands: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)


def main() -> int:
    """Arguments: the engine's module, and its options as JSON."""
    # What a library prints must not end up between the events.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        engine = importlib.import_module(sys.argv[1]).Engine(json.loads(sys.argv[2]))
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        out.write(json.dumps({"event": "failed", "reason": f"{type(error).__name__}: {reason}"}) + "\n")
        out.flush()
        os._exit(1)
    out.write(json.dumps({"event": "ready", "description": engine.describe()}) + "\n")
    out.flush()
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    try:
        Worker(engine, out, commands).run()
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        out.write(json.dumps({"event": "failed", "reason": f"{type(error).__name__}: {reason}"}) + "\n")
        out.flush()
    # Some engines' own threads would keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
