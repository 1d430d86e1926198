"""Numbers of a run, against ones that can be worked out by hand."""

from __future__ import annotations

import pytest

from octavo.bench.load.metrics import (
    Limit,
    is_client_bound,
    measure_run,
    parse_limits,
    pools,
    request_metrics,
)
from octavo.bench.load.works import Work, WorkKind, rate_of
from octavo.bench.targets.target import RequestRecord, RunRecord, TargetError
from octavo.errors import ConfigError

MS = 1_000_000


def record(
    *chunk_ms: float, due: float = 0.0, sent: float | None = None, wanted: int | None = None
) -> RequestRecord:
    return RequestRecord(
        request_id="r",
        num_prompt_tokens=10,
        num_requested_tokens=len(chunk_ms) if wanted is None else wanted,
        scheduled_ns=round(due * MS),
        sent_ns=round((due if sent is None else sent) * MS),
        end_ns=round(chunk_ms[-1] * MS) if chunk_ms else None,
        chunk_ns=[round(one * MS) for one in chunk_ms],
        chunk_tokens=[1] * len(chunk_ms),
    )


def run_of(*records: RequestRecord) -> RunRecord:
    return RunRecord(target="t", workload="w", block=0, started_ns=0, ended_ns=0, requests=list(records))


def test_latencies_count_from_the_scheduled_arrival():
    found = request_metrics(record(130, 150, 190, due=100, sent=120))
    assert found == {
        "ttft_ms": 30,
        "ttft_sent_ms": 10,
        "e2e_ms": 90,
        "norm_latency_ms_per_token": 30,
        "send_lag_ms": 20,
        "tpot_ms": 30,
    }
    assert "tpot_ms" not in request_metrics(record(5))


def test_throughput_tells_its_three_numbers():
    numbers = measure_run(run_of(record(100, 200), record(150, 250, 400, 500)))
    assert numbers["run_s"] == pytest.approx(0.5)
    assert numbers["tok_out_s"] == pytest.approx(6 / 0.5)
    assert numbers["tok_prompt_s"] == pytest.approx(20 / 0.5)
    assert numbers["tok_total_s"] == pytest.approx(26 / 0.5)
    assert numbers["req_s"] == pytest.approx(4)


def test_steady_window_leaves_ramp_and_drain_out():
    """Twenty tokens, one every 10 ms, after a slow start and before a slow end."""
    middle = [1000 + 10 * index for index in range(18)]
    numbers = measure_run(run_of(record(0.001, *middle, 5000)))
    assert numbers["tok_out_steady_s"] == pytest.approx(100, rel=0.01)
    assert numbers["tok_out_s"] == pytest.approx(4)


def test_what_failed_is_counted_and_not_averaged():
    broken = record(10, 20, wanted=5)
    late = record(10)
    late.error = "not done after 1 s"
    numbers = measure_run(run_of(record(100, 200), broken, late), [Limit("ttft_ms", 1000)])
    assert (numbers["num_requests"], numbers["num_errors"]) == (3, 2)
    assert numbers["errors"] == ["2 tokens came where 5 were asked for", "not done after 1 s"]
    assert numbers["ttft_ms"]["n"] == 1
    assert numbers["goodput_req_s"] == pytest.approx(1 / 0.2)
    assert measure_run(run_of(broken))["num_errors"] == 1


def test_goodput_takes_every_limit():
    limits = parse_limits(["ttft:120", "tpot:60"])
    numbers = measure_run(run_of(record(100, 150), record(130, 150), record(100, 180), record(110)), limits)
    assert numbers["goodput_req_s"] * numbers["run_s"] == pytest.approx(2)
    with pytest.raises(ConfigError, match="ttft:2000"):
        parse_limits(["ttft"])


def test_a_late_client_is_flagged():
    assert not measure_run(run_of(record(100), record(100)))["is_client_bound"]
    assert measure_run(run_of(record(100), record(100, sent=10)))["is_client_bound"]


def test_gaps_are_pooled_over_requests():
    assert pools(run_of(record(0, 10, 30), record(5, 6)))["chunk_gap_ms"] == [10, 20, 1]


def test_decoding_counts_while_all_decode():
    work = Work("decode", WorkKind.DECODE, [])
    together = run_of(record(0, 100, 200, 300), record(100, 200, 300, 400))
    # From 100 to 300 ms: two tokens of each.
    assert rate_of(work, together) == pytest.approx(4 / 0.2)
    with pytest.raises(TargetError, match="never decoded together"):
        rate_of(work, run_of(record(0, 10), record(20, 30)))
    with pytest.raises(TargetError, match="2 tokens came where 3"):
        rate_of(work, run_of(record(0, 10, wanted=3)))


def test_a_client_that_sends_late_is_found_out():
    assert not is_client_bound([0.0, 4.0], [100.0, 100.0])
    assert is_client_bound([0.0, 6.0], [100.0, 100.0])
    assert not is_client_bound([], [])
