"""Load generators against a server whose times are known: what each reads, over what was really sent.

Our own client, and `vllm bench serve` and guidellm where they are installed, on the same workload.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octavo.bench.load.client import run_load
from octavo.bench.load.external import ExternalClient
from octavo.bench.load.metrics import measure_run, pools
from octavo.bench.load.mock_server import MockTiming
from octavo.bench.load.schedule import Arrivals
from octavo.bench.targets.openai_url import OpenAiUrl
from octavo.bench.targets.target import BenchRequest, TargetError

# A client is honest within the larger of these two.
LARGEST_ERROR_SHARE = 0.02
LARGEST_ERROR_MS = 1.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number as a client read it, beside the server's own.

    Attributes:
        is_honest: within 2 %, or within 1 ms where it is a time.
    """

    metric: str
    read: float
    truth: float

    @property
    def ratio(self) -> float:
        return self.read / self.truth

    @property
    def is_honest(self) -> bool:
        error = abs(self.read - self.truth)
        largest_ms = LARGEST_ERROR_MS if self.metric.endswith("_ms") else 0.0
        return error <= max(LARGEST_ERROR_SHARE * self.truth, largest_ms)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One client. `failure` is one line where it could not be run."""

    client: str
    readings: tuple[Reading, ...] = ()
    failure: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "client": self.client,
            "failure": self.failure,
            "readings": [
                asdict(one) | {"ratio": one.ratio, "is_honest": one.is_honest} for one in self.readings
            ],
        }


class MockProcess:
    """The mock server in a process of its own, so that it does not wait for the client under test."""

    def __init__(self, timing: MockTiming) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "octavo.bench.load.mock_server", json.dumps(asdict(timing))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = "" if self._process.stdout is None else self._process.stdout.readline().strip()

    def end(self) -> list[dict[str, Any]]:
        """What it sent: of each answer `received_ns` and `sent_ns`."""
        output, _ = self._process.communicate(timeout=_STOP_SECONDS)
        answers: list[dict[str, Any]] = json.loads(output)
        return answers

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def calibrate(
    timing: MockTiming,
    requests: Sequence[BenchRequest],
    arrivals: Arrivals,
    *,
    seed: int,
    tokenizer: str,
    clients: Sequence[ExternalClient] = (),
    on_done: Callable[[], None] | None = None,
) -> list[Calibration]:
    """Every client in turn, each against a fresh server.

    Args:
        requests: all with outputs of the same length.
        clients: others than ours.
        tokenizer: a Hugging Face folder, for clients that count tokens themselves; "" where there is none.
    """
    found = [_calibrate_ours(timing, requests, arrivals, seed)]
    for client in clients:
        if on_done is not None:
            on_done()
        found.append(_calibrate_external(client, timing, requests, arrivals, seed, tokenizer))
    if on_done is not None:
        on_done()
    return found


def _calibrate_ours(
    timing: MockTiming, requests: Sequence[BenchRequest], arrivals: Arrivals, seed: int
) -> Calibration:
    server = MockProcess(timing)

    async def measure() -> dict[str, float]:
        target = OpenAiUrl("mock", server.url)
        await target.start()
        due = arrivals.due_seconds(len(requests), seed=seed)
        run = await run_load(target, requests, due, workload="calibration")
        await target.stop()
        values = pools(run)
        return {
            "ttft_ms": statistics.median(values["ttft_sent_ms"]),
            "chunk_gap_ms": statistics.median(values["chunk_gap_ms"]),
            "tok_out_s": measure_run(run)["tok_out_s"],
        }

    try:
        read = asyncio.run(measure())
        return Calibration(client="octavo bench serve", readings=_readings(read, server.end(), requests))
    finally:
        server.kill()


def _calibrate_external(
    client: ExternalClient,
    timing: MockTiming,
    requests: Sequence[BenchRequest],
    arrivals: Arrivals,
    seed: int,
    tokenizer: str,
) -> Calibration:
    server = MockProcess(timing)
    try:
        with tempfile.TemporaryDirectory(prefix="octavo-calibrate-") as folder:
            read = client.measure(
                server.url, requests, arrivals, seed=seed, tokenizer=tokenizer, folder=Path(folder)
            )
        return Calibration(client=client.name, readings=_readings(read, server.end(), requests))
    except TargetError as error:
        return Calibration(client=client.name, failure=str(error))
    finally:
        server.kill()


def _readings(
    read: dict[str, float], answers: list[dict[str, Any]], requests: Sequence[BenchRequest]
) -> tuple[Reading, ...]:
    # A client's own first request to see whether the server is there is not part of the workload.
    answers = [one for one in answers if one["sent_ns"]][-len(requests) :]
    first = min(one["received_ns"] for one in answers)
    last = max(one["sent_ns"][-1] for one in answers)
    gaps = [
        (later - earlier) / 1e6
        for one in answers
        for earlier, later in zip(one["sent_ns"], one["sent_ns"][1:], strict=False)
    ]
    num_tokens = sum(request.num_output_tokens for request in requests)
    truth = {
        "ttft_ms": statistics.median((one["sent_ns"][0] - one["received_ns"]) / 1e6 for one in answers),
        "chunk_gap_ms": statistics.median(gaps),
        "tok_out_s": num_tokens / (last - first) * 1e9,
    }
    return tuple(Reading(metric=name, read=read[name], truth=truth[name]) for name in truth if name in read)
