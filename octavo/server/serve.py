"""The server's life: start, ready line, signals, drain, end. Returns the process's exit code.

The engine process is spawned before the web framework is even imported: both load side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.config import ServeConfig
from octavo.errors import ConfigError, EngineUnavailableError, ModelLoadError, OctavoError
from octavo.messages import StopEngine
from octavo.server.engine_link import EngineLink, EngineProcess
from octavo.server.unix_listener import UnixListener

if TYPE_CHECKING:
    from octavo.messages import EngineFailed, EngineReady, ToEngine

_STOP_SECONDS = 5.0


def run_server(config: ServeConfig) -> int:
    """Serve until a signal or the engine's end.

    Returns:
        0 after a drained stop, 2 for a wrong setting or model, 1 when the engine failed, 130 when
        a second signal cut the drain short.
    """
    logging.basicConfig(level=logging.WARNING, format="octavo: %(levelname)s: %(message)s")
    if config.server.log_requests:
        logging.getLogger("octavo.requests").setLevel(logging.INFO)
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listen(config.server.host, config.server.port))
            admin_listener = None
            if config.server.admin_socket is not None:
                admin_listener = UnixListener(config.server.admin_socket, "--admin-socket")
                stack.callback(admin_listener.close)
        except OctavoError as error:
            return _say_error(str(error), 2)
        # Waiting tokens are bounded here, where a body with several prompts is let in whole or not at all.
        scheduler = replace(config.engine.scheduler, max_queued_tokens=None)
        engine_process = EngineProcess(replace(config.engine, scheduler=scheduler))
        stack.callback(engine_process.kill)
        return asyncio.run(_Server(config, engine_process, listener, admin_listener).run())


class _Server:
    """One run of the server."""

    def __init__(
        self,
        config: ServeConfig,
        engine_process: EngineProcess,
        listener: socket.socket,
        admin_listener: UnixListener | None,
    ) -> None:
        # Imported here: by now the engine process is loading on another core.
        from octavo.observability.metrics import ServerMetrics  # noqa: PLC0415
        from octavo.server.front import Front  # noqa: PLC0415
        from octavo.server.parts import ServerParts  # noqa: PLC0415

        self._config = config
        self._engine_process = engine_process
        self._listener = listener
        self._admin_listener = admin_listener
        self._link: EngineLink | None = None
        metrics = ServerMetrics(caches_prefixes=config.engine.cache.prefix_caching)
        scheduler = config.engine.scheduler
        self._front = Front(
            self._send,
            metrics,
            max_unstarted=scheduler.max_queued_requests + scheduler.max_num_seqs,
            max_unstarted_tokens=scheduler.max_queued_tokens,
            on_engine_end=self._note_engine_end,
        )
        self._parts = ServerParts(config, self._front, metrics)
        self._stop = asyncio.Event()
        self._has_stopped_engine = False
        self._num_signals = 0
        self._exit_code = 0

    async def run(self) -> int:
        """Until the end; the exit code."""
        from octavo.server.admin import make_admin_app  # noqa: PLC0415
        from octavo.server.app import make_app  # noqa: PLC0415
        from octavo.server.http_server import HttpServer  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signal_number, self._note_signal, signal_number)
        self._link = await EngineLink.open(self._engine_process, self._front)
        doors = [(HttpServer(make_app(self._parts)), self._listener)]
        if self._admin_listener is not None:
            doors.append((HttpServer(make_admin_app(self._parts)), self._admin_listener.socket))
        listening = [asyncio.create_task(server.run_on(door)) for server, door in doors]
        starting = asyncio.create_task(self._start())
        await self._stop.wait()
        starting.cancel()
        await self._end_requests()
        for server, _ in doors:
            server.stop()
        await asyncio.gather(*listening)
        return self._exit_code

    async def _start(self) -> None:
        """Load the text parts while the engine loads; then open for requests."""
        from octavo.build import build_text  # noqa: PLC0415

        try:
            self._parts.text = await asyncio.to_thread(build_text, self._config.engine.model)
            facts = await self._front.wait_loaded()
        except EngineUnavailableError:
            return  # the engine's end has been told already
        except OctavoError as error:
            self._end(_say_error(str(error), _exit_code(error)))
            return
        except Exception as error:
            self._end(_say_error(f"internal fault: {type(error).__name__}: {error}", 1))
            return
        self._front.open()
        self._say_ready(facts)

    async def _end_requests(self) -> None:
        """Drain, then stop the engine. One that is still loading, hung or dead is not waited for."""
        if self._front.facts is not None and self._front.is_live:
            await self._front.drain(self._config.server.drain_timeout)
            self._has_stopped_engine = True
            self._send(StopEngine())
            await self._engine_process.wait_ended(0.0 if self._front.is_hung else _STOP_SECONDS)
        self._has_stopped_engine = True
        self._engine_process.kill()

    def _send(self, message: ToEngine) -> None:
        if self._link is not None:
            self._link.send(message)

    def _note_signal(self, signal_number: int) -> None:
        self._num_signals += 1
        if self._num_signals > 1:
            self._engine_process.kill()
            if self._admin_listener is not None:
                self._admin_listener.close()
            os._exit(128 + signal_number)
        if self._front.num_live:
            print("octavo: finishing what runs; a second signal ends at once", file=sys.stderr, flush=True)
        self._stop.set()

    def _note_engine_end(self, failure: EngineFailed | None) -> None:
        if self._has_stopped_engine:
            return
        if failure is not None:
            self._end(_say_error(failure.message, failure.exit_code))
        else:
            self._end(_say_error(self._engine_process.describe_end(), 1))

    def _end(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._stop.set()

    def _say_ready(self, facts: EngineReady) -> None:
        host, port = self._listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        model = self._parts.model_name
        has_key = self._config.server.api_key is not None
        authorization = '-H "Authorization: Bearer $OCTAVO_API_KEY" ' if has_key else ""
        print(
            f"Octavo is ready at {address} (model {model}, {facts.num_blocks} KV blocks of "
            f"{facts.block_size} tokens, {facts.dtype} on {facts.device}, "
            f"ready in {_seconds_since_process_start():.1f} s)\n"
            f"Model loaded in {facts.load_seconds:.2f} s; of that {facts.pack_seconds:.2f} s to lay "
            f"{facts.packed_bytes / 2**20:,.0f} MiB of matrices out for the kernels\nTry:\n"
            f"  curl {address}/v1/chat/completions {authorization}-H 'Content-Type: application/json' "
            '-d \'{"messages": [{"role": "user", "content": "Hello!"}]}\'',
            flush=True,
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from None


def _exit_code(error: OctavoError) -> int:
    return 2 if isinstance(error, ConfigError | ModelLoadError) else 1


def _say_error(message: str, exit_code: int) -> int:
    print(f"octavo: error: {message}", file=sys.stderr, flush=True)
    return exit_code


def _seconds_since_process_start() -> float:
    """What a user waited, interpreter and imports included."""
    stat = Path("/proc/self/stat").read_text()
    start_ticks = int(stat.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")
