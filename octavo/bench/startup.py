"""Startup: from the command to a server that is ready, and what memory it then takes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from octavo.errors import EngineUnavailableError
from octavo.observability.process import peak_rss_bytes

_READY_LINE = "Octavo is ready"
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class StartupRun:
    """Attributes:
    ready_seconds: from spawning the command to its ready line.
    peak_rss_bytes: of the front process and the engine process together, at that moment.
    """

    ready_seconds: float
    peak_rss_bytes: int


def measure_startup(serve_arguments: list[str]) -> StartupRun:
    """Start `octavo serve` on a free port, wait until it is ready, stop it.

    Raises:
        EngineUnavailableError: it ended before it was ready; it has said why on stderr.
    """
    command = [sys.executable, "-m", "octavo.cli.main", "serve", *serve_arguments, "--port", "0"]
    started_seconds = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout or ():
                if line.startswith(_READY_LINE):
                    ready_seconds = time.perf_counter() - started_seconds
                    return StartupRun(ready_seconds, peak_rss_bytes(server.pid))
        finally:
            _stop(server)
    raise EngineUnavailableError(f"the server ended with exit code {server.returncode} before it was ready")


def _stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
