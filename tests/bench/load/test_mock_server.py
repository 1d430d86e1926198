"""Our client against a server whose times are known: it reads what was sent."""

from __future__ import annotations

import asyncio
import statistics

import pytest

from octavo.bench.load.client import run_load
from octavo.bench.load.metrics import measure_run, pools
from octavo.bench.load.mock_server import MockServer, MockTiming
from octavo.bench.targets.openai_url import OpenAiUrl
from octavo.bench.targets.target import BenchRequest, RunRecord


def requests(count: int, num_output: int = 8) -> list[BenchRequest]:
    return [
        BenchRequest(
            request_id=f"r{number}",
            prompt_token_ids=[1, 2, 3],
            prompt_text="one two three",
            num_output_tokens=num_output,
        )
        for number in range(count)
    ]


async def load(server: MockServer, wanted: list[BenchRequest], due: list[float], **limits) -> RunRecord:
    target = OpenAiUrl("mock", server.url)
    await target.start()
    try:
        return await run_load(target, wanted, due, workload="mock", **limits)
    finally:
        await target.stop()


async def test_readings_are_what_was_sent():
    async with MockServer(MockTiming(ttft_ms=60, gap_ms=15, jitter=0.3)) as server:
        run = await load(server, requests(6), [0.02 * number for number in range(6)])
    values = pools(run)
    truth = [(one.sent_ns[0] - one.received_ns) / 1e6 for one in server.sent]
    assert min(truth) >= 60
    assert statistics.median(values["ttft_sent_ms"]) == pytest.approx(statistics.median(truth), abs=5)
    sent_gaps = [
        (b - a) / 1e6 for one in server.sent for a, b in zip(one.sent_ns, one.sent_ns[1:], strict=False)
    ]
    assert statistics.median(values["chunk_gap_ms"]) == pytest.approx(statistics.median(sent_gaps), abs=2)
    assert len(values["chunk_gap_ms"]) == 6 * 7
    assert measure_run(run)["num_errors"] == 0


async def test_merged_chunks_count_all_their_tokens():
    async with MockServer(MockTiming(ttft_ms=5, gap_ms=2, tokens_per_chunk=3)) as server:
        run = await load(server, requests(2), [0.0, 0.0])
    # The client sees three events; what they lack of the usage goes to the last.
    assert [record.num_output_tokens for record in run.requests] == [8, 8]
    assert [len(record.chunk_ns) for record in run.requests] == [3, 3]


async def test_a_cap_on_concurrency_makes_requests_wait_in_the_client():
    async with MockServer(MockTiming(ttft_ms=40, gap_ms=1)) as server:
        run = await load(server, requests(3, 2), [0.0, 0.0, 0.0], max_concurrency=1)
    lags = sorted(pools(run)["send_lag_ms"])
    assert lags[0] < 30 and lags[1] >= 40 and lags[2] >= 80
    assert measure_run(run)["is_client_bound"]


async def test_what_takes_too_long_is_given_up_and_the_rest_goes_on():
    async with MockServer(MockTiming(ttft_ms=20, gap_ms=60)) as server:
        long, short = requests(1, 50)[0], requests(2, 1)[1]
        run = await load(server, [long, short], [0.0, 0.0], timeout_seconds=0.3)
    assert run.requests[0].error == "not done after 0.3 s"
    assert run.requests[1].error is None and run.requests[1].num_output_tokens == 1


async def test_a_server_that_goes_away_fails_its_requests_in_one_line():
    async with MockServer(MockTiming(ttft_ms=20, gap_ms=30)) as server:
        target = OpenAiUrl("mock", server.url)
        await target.start()
        url = server.url
    await asyncio.sleep(0)
    await target.stop()
    run = await run_load(OpenAiUrl("mock", url), requests(1), [0.0], workload="mock")
    assert run.requests[0].error is not None and "cannot be reached" in run.requests[0].error
