"""An engine that runs in an environment of its own, under its own Python, as a target.

Talks JSON lines with `workers/peer_worker.py` over pipes. Nothing of the peer is imported here.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from octavo.bench.targets.local_server import last_line
from octavo.bench.targets.target import (
    Ability,
    BenchRequest,
    Chunk,
    TargetDescription,
    TargetError,
    TargetStep,
)
from octavo.bench.targets.tied import tied
from octavo.config import child_environment
from octavo.observability.process import peak_rss_bytes, signal_family

_WORKERS = Path(__file__).parent / "workers"
_READY_SECONDS = 600.0
_STOP_SECONDS = 15.0
_MAX_LINE_BYTES = 1 << 28  # a batch's chunks come as one line


@dataclass(frozen=True, kw_only=True)
class PeerProgram:
    """What to run.

    Attributes:
        python: of the peer's environment.
        module: of workers/, with the class Engine.
        options: for it; shown in the fairness table.
        environment: beside this process's own.
        abilities: what the engine can do.
    """

    python: Path
    module: str
    options: Mapping[str, Any]
    abilities: frozenset[Ability]
    environment: Mapping[str, str] = field(default_factory=dict)


class PeerProcess:
    """The worker while it lives. One reader hands its events to whom they belong."""

    def __init__(self, name: str, program: PeerProgram) -> None:
        self._name, self._program = name, program
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log: IO[bytes] | None = None
        self._streams: dict[str, asyncio.Queue[Chunk | TargetError | None]] = {}
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._failure: str | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        return self._program.abilities

    async def start(self) -> TargetDescription:
        if not self._program.python.exists():
            raise TargetError(f"{self._name} is not installed: {self._program.python} does not exist")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        program = self._program
        self._process = await asyncio.create_subprocess_exec(
            *tied(
                [
                    str(program.python),
                    str(_WORKERS / "peer_worker.py"),
                    program.module,
                    msgspec.json.encode(program.options).decode(),
                ]
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=child_environment(program.environment),
            limit=_MAX_LINE_BYTES,
        )
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._reader = asyncio.create_task(self._read_events(self._process))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                described = (await self._answer)["description"]
        except TimeoutError:
            raise TargetError(f"{self._name}: not ready after {_READY_SECONDS:.0f} s") from None
        flags = tuple(f"{key}={value}" for key, value in program.options.items())
        variables = tuple(f"{key}={value}" for key, value in program.environment.items())
        unknown = {"kv_bytes": None, "num_threads": None, "max_num_seqs": None}
        unknown |= {"max_num_batched_tokens": None, "prefix_caching": None}
        described["notes"] = tuple(described.get("notes", ()))
        return TargetDescription(**{**unknown, **described}, name=self._name, flags=flags + variables)

    async def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        self._check_request(request)
        arrived: asyncio.Queue[Chunk | TargetError | None] = asyncio.Queue()
        self._streams[request.request_id] = arrived
        try:
            await self._send({"op": "generate", "request": _as_json(request)})
            while (item := await arrived.get()) is not None:
                if isinstance(item, TargetError):
                    raise item
                yield item
        finally:
            self._streams.pop(request.request_id, None)

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        for request in requests:
            self._check_request(request)
        answer = await self._ask({"op": "batch", "requests": [_as_json(request) for request in requests]})
        return [
            [
                Chunk(arrival_ns=arrival_ns, num_tokens=len(token_ids), token_ids=tuple(token_ids))
                for arrival_ns, token_ids in answer["chunks"][request.request_id]
            ]
            for request in requests
        ]

    async def stats(self) -> Mapping[str, float]:
        counts: dict[str, float] = (await self._ask({"op": "stats"}))["stats"]
        rss_bytes = 0 if self._process is None else peak_rss_bytes(self._process.pid)
        return counts | {"peak_rss_bytes": float(rss_bytes)}

    async def take_steps(self) -> Sequence[TargetStep]:
        return ()

    async def reset(self) -> None:
        """Nothing: prompts of different runs begin differently."""

    def pause(self) -> None:
        if self._process is not None:
            signal_family(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            signal_family(self._process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        self.resume()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader
            self._reader = None
        if self._log is not None:
            self._log.close()
            self._log = None

    async def _read_events(self, process: asyncio.subprocess.Process) -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            event = msgspec.json.decode(line)
            if event["event"] == "tokens":
                self._hand_out(event, time.monotonic_ns())
            elif event["event"] == "failed":
                self._failure = f"{self._name}: {event['reason']}"
                self._fail(self._failure)
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(event)
        await process.wait()
        said = last_line(self._log) if self._log is not None else ""
        self._fail(self._failure or f"{self._name} ended with exit code {process.returncode}: {said}")

    def _hand_out(self, event: dict[str, Any], arrival_ns: int) -> None:
        stream = self._streams.get(event["id"])
        if stream is None:
            return
        token_ids = tuple(event["token_ids"])
        if token_ids:
            stream.put_nowait(Chunk(arrival_ns=arrival_ns, num_tokens=len(token_ids), token_ids=token_ids))
        if event["ended"]:
            stream.put_nowait(None)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        for stream in self._streams.values():
            stream.put_nowait(TargetError(reason))
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TargetError(reason))
            self._answer.exception()  # nobody may be waiting for it

    async def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its answer; one at a time."""
        self._answer = asyncio.get_running_loop().create_future()
        await self._send(command)
        return await self._answer

    async def _send(self, command: dict[str, Any]) -> None:
        if self._failure is not None:
            raise TargetError(self._failure)
        if self._process is None or self._process.stdin is None:
            raise TargetError(f"{self._name} has not been started")
        try:
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")
            await self._process.stdin.drain()
        except OSError:
            raise TargetError(self._failure or f"{self._name} has ended") from None

    def _check_request(self, request: BenchRequest) -> None:
        if request.num_samples > 1 or request.beam_width:
            raise TargetError(f"{self._name}: several outputs of a prompt cannot be asked for")


def _as_json(request: BenchRequest) -> dict[str, Any]:
    return {
        "id": request.request_id,
        "prompt": list(request.prompt_token_ids),
        "num_output_tokens": request.num_output_tokens,
    }
