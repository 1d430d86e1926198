"""Numbers of a run, from records whose times are known."""

from __future__ import annotations

import pytest

from octavo.bench.experiments.measures import measure_run, time_requests
from octavo.bench.targets.target import RequestRecord, RunRecord, TargetStep

MS = 1_000_000


def record(name: str, due_ms: int, first_ms: int, count: int, **other) -> RequestRecord:
    """One token every 10 ms from `first_ms` on."""
    return RequestRecord(
        request_id=name,
        num_prompt_tokens=100,
        num_requested_tokens=other.pop("wanted", count),
        scheduled_ns=due_ms * MS,
        sent_ns=(due_ms + other.pop("lag_ms", 0)) * MS,
        chunk_ns=[(first_ms + 10 * index) * MS for index in range(count)],
        chunk_tokens=[1] * count,
        **other,
    )


def run_of(*records: RequestRecord, steps=()) -> RunRecord:
    return RunRecord(
        target="octavo",
        workload="w",
        block=0,
        started_ns=0,
        ended_ns=0,
        requests=list(records),
        steps=list(steps),
    )


def test_latencies_count_from_the_scheduled_time():
    run = run_of(record("a", 1000, 1200, 11, lag_ms=50), record("b", 1500, 1600, 1))
    first, second = time_requests(run)
    assert (first.ttft_ms, first.tpot_ms, first.e2e_ms, first.send_lag_ms) == (200, 10, 300, 50)
    assert first.norm_latency_ms_per_token == pytest.approx(300 / 11)
    assert (second.due_ms, second.tpot_ms) == (500, None)
    found = measure_run(run)
    assert found["run_s"] == pytest.approx(0.6)
    assert found["tok_out_s"] == pytest.approx(12 / 0.6)
    assert found["tok_total_s"] == pytest.approx(212 / 0.6)
    assert found["tok_prompt_s"] + found["tok_out_s"] == pytest.approx(found["tok_total_s"])


def test_what_failed_or_is_too_short_counts_for_nothing():
    whole = record("a", 0, 100, 5)
    broken, short = record("b", 0, 100, 5, error="it broke"), record("c", 0, 100, 4, wanted=5)
    assert measure_run(run_of(whole, broken, short))["tok_out_s"] == measure_run(run_of(whole))["tok_out_s"]
    assert measure_run(run_of(broken)) == {}


def test_a_long_ramp_is_no_part_of_the_steady_rate():
    steady = [record("a", 0, 1000, 101)]
    assert measure_run(run_of(*steady))["tok_out_steady_s"] == pytest.approx(100)
    assert measure_run(run_of(*steady))["tok_out_s"] == pytest.approx(101 / 2.0)


def test_means_over_steps_are_weighted_by_their_time():
    def step(start_ms: int, end_ms: int, num_running: int, used: int) -> TargetStep:
        return TargetStep(
            start_ns=start_ms * MS,
            end_ns=end_ms * MS,
            num_running=num_running,
            num_waiting=0,
            num_prefill_tokens=0,
            num_decode_tokens=num_running,
            blocks_used=used,
            blocks_shared=0,
            blocks_cached=0,
            blocks_free=10 - used,
            num_preemptions=0,
        )

    found = measure_run(run_of(record("a", 0, 10, 2), steps=[step(0, 30, 4, 10), step(30, 40, 0, 0)]))
    assert found["batch_mean"] == pytest.approx(3.0)
    assert found["kv_util"] == pytest.approx(0.75)
