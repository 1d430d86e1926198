"""Startup: from the command to a server that is ready, and what memory it then takes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from octavo.errors import EngineUnavailableError
from octavo.observability.process import peak_rss_bytes

_READY_LINE = "Octavo is ready"
_LOADED_LINE = re.compile(r"Model loaded in ([0-9.]+) s; of that ([0-9.]+) s to lay ([0-9,]+) MiB")
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class StartupRun:
    """Attributes:
    ready_seconds: from spawning the command to its ready line.
    peak_rss_bytes: of the front process and the engine process together, at that moment.
    load_seconds: of these, the model's, packing included.
    pack_seconds, packed_mib: what laying its matrices out for the kernels took, and their size then.
    """

    ready_seconds: float
    peak_rss_bytes: int
    load_seconds: float
    pack_seconds: float
    packed_mib: int


def measure_startup(serve_arguments: list[str]) -> StartupRun:
    """Start `octavo serve` on a free port, wait until it is ready, stop it.

    Raises:
        EngineUnavailableError: it ended before it was ready; it has said why on stderr.
    """
    command = [sys.executable, "-m", "octavo.cli.main", "serve", *serve_arguments, "--port", "0"]
    started_seconds = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready_seconds, rss_bytes = 0.0, 0
            for line in server.stdout or ():
                if line.startswith(_READY_LINE):
                    ready_seconds = time.perf_counter() - started_seconds
                    rss_bytes = peak_rss_bytes(server.pid)
                elif loaded := _LOADED_LINE.match(line):
                    packed_mib = int(loaded[3].replace(",", ""))
                    return StartupRun(
                        ready_seconds, rss_bytes, float(loaded[1]), float(loaded[2]), packed_mib
                    )
        finally:
            _stop(server)
    raise EngineUnavailableError(f"the server ended with exit code {server.returncode} before it was ready")


def _stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
