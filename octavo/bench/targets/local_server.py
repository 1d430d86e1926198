"""A server that the benchmark starts itself and then drives by its URL: `octavo serve`, llama-server.

Owns the process: it is ended by `stop`, and its last words are told where it ends before.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from octavo.bench.targets.http_stream import Address, HttpClient
from octavo.bench.targets.openai_url import OpenAiUrl
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

_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class ServerCommand:
    """How to start a server and what it is.

    Attributes:
        make_argv: from the port that it must listen on.
        describe: sets right what its URL alone cannot tell.
        environment: beside this process's own.
        extra: further fields of each request.
        cache_socket: where `DELETE /cache` forgets cached prefixes (Octavo's operators' socket).
        on_stop: called once the server has ended.
    """

    engine: str
    make_argv: Callable[[int], Sequence[str]]
    describe: Callable[[TargetDescription, Sequence[str]], TargetDescription]
    environment: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    cache_socket: str | None = None
    tells_token_ids: bool = False
    ready_seconds: float = 300.0
    on_stop: Callable[[], None] | None = None


class LocalServer:
    """The server while it lives, and the client of it."""

    def __init__(self, name: str, command: ServerCommand) -> None:
        self._name, self._command = name, command
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._client: OpenAiUrl | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        abilities = {Ability.STREAM, Ability.IGNORE_EOS, Ability.CONTINUOUS, Ability.SAMPLES}
        if self._command.tells_token_ids:
            abilities.add(Ability.TOKEN_IDS)
        if self._command.cache_socket is not None:
            abilities.add(Ability.CACHE_RESET)
        return frozenset(abilities)

    async def start(self) -> TargetDescription:
        port = _free_port()
        argv = list(self._command.make_argv(port))
        if shutil.which(argv[0]) is None:
            raise TargetError(f"{self._name}: {argv[0]} cannot be started: there is no such program")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the server)
        self._process = subprocess.Popen(
            tied(argv),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=child_environment(self._command.environment),
        )
        url = f"http://127.0.0.1:{port}"
        await self._wait_ready(url, self._process)
        self._client = OpenAiUrl(
            self._name,
            url,
            tells_token_ids=self._command.tells_token_ids,
            extra=self._command.extra,
            engine=self._command.engine,
        )
        description = replace(await self._client.start(), flags=tuple(argv[1:]))
        return self._command.describe(description, argv)

    def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        return self._live_client().generate(request)

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        return await self._live_client().generate_batch(requests)

    async def stats(self) -> Mapping[str, float]:
        counts = dict(await self._live_client().stats())
        rss_bytes = 0 if self._process is None else peak_rss_bytes(self._process.pid)
        return counts | {"peak_rss_bytes": float(rss_bytes)}

    async def take_steps(self) -> Sequence[TargetStep]:
        return ()

    async def reset(self) -> None:
        if self._command.cache_socket is None:
            return
        client = HttpClient(Address(unix_path=self._command.cache_socket))
        try:
            status, _ = await client.fetch("DELETE", "/cache")
            if status != 200:
                raise TargetError(f"{self._name}: the cache could not be dropped: status {status}")
        finally:
            client.close()

    def pause(self) -> None:
        if self._process is not None:
            signal_family(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            signal_family(self._process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        self.resume()
        client, self._client = self._client, None
        if client is not None:
            await client.stop()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(_end, process)
            if self._command.on_stop is not None:
                self._command.on_stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _live_client(self) -> OpenAiUrl:
        if self._client is None or self._process is None:
            raise TargetError(f"{self._name} has not been started")
        if self._process.poll() is not None:
            raise TargetError(self._last_words(self._process))
        return self._client

    async def _wait_ready(self, url: str, process: subprocess.Popen[bytes]) -> None:
        client = HttpClient(Address.of_url(url))
        deadline = time.monotonic() + self._command.ready_seconds
        try:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise TargetError(self._last_words(process))
                try:
                    status, _ = await client.fetch("GET", "/health")
                    if status == 200:
                        return
                except TargetError:
                    pass  # it does not listen yet
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            client.close()
        raise TargetError(f"{self._name}: not ready after {self._command.ready_seconds:.0f} s")

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        said = "" if self._log is None else last_line(self._log)
        return f"{self._name} ended with exit code {process.returncode}: {said}"


def last_line(log: IO[bytes]) -> str:
    """The last line of a log that says something."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 8192))
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def octavo_http(
    name: str, model: Sequence[str], flags: Sequence[str], *, python: str, facts: Mapping[str, Any]
) -> LocalServer:
    """`octavo serve` with these flags.

    Args:
        model: the positional MODEL, or nothing.
        facts: of its TargetDescription, as far as the flags say them.
    """
    folder = tempfile.TemporaryDirectory(prefix="octavo-bench-")
    admin_socket = f"{folder.name}/admin.sock"

    def make_argv(port: int) -> list[str]:
        where = ["--port", str(port), "--admin-socket", admin_socket]
        return [python, "-m", "octavo.cli.main", "serve", *model, *where, *flags]

    def describe(description: TargetDescription, argv: Sequence[str]) -> TargetDescription:
        return replace(description, flags=tuple(argv[3:]), **facts)

    command = ServerCommand(
        engine="octavo",
        make_argv=make_argv,
        describe=describe,
        cache_socket=admin_socket,
        on_stop=folder.cleanup,
    )
    return LocalServer(name, command)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
