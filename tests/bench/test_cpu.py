"""`run_cpu`: each number from the right steps, HTTP beside the engine, what cannot be measured refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.bench.cpu import num_measurements, run_cpu
from octavo.bench.cpu_spec import CpuSpec
from octavo.config import SchedulerConfig
from octavo.errors import ConfigError

SPEC = CpuSpec(repeats=2, num_requests=2, prefill=40, streams=(1, 3), num_decoded=4, context=8)


def serve_arguments(tiny_config) -> list[str]:
    return [str(tiny_config.model.model), "--kv-cache-memory", "4MB", "--num-threads", "1"]


def test_every_work_is_measured_as_often_as_told(tiny_config):
    told: list[int] = []
    report = run_cpu(tiny_config, SPEC, serve_arguments(tiny_config), on_done=lambda: told.append(1))
    assert [work["name"] for work in report["works"]] == [
        "mixed, 2 at once",
        "prefill 40",
        "decode, 1 streams",
        "decode, 3 streams",
        "mixed, 2 at once, through HTTP",
        "start to ready",
    ]
    assert len(told) == num_measurements(SPEC) == 3 * 6
    for work in report["works"]:
        assert len(work["values"]) == 2
        assert 0 < work["min"] <= work["median"] <= work["max"]
    assert report["spec"]["streams"] == (1, 3)
    assert report["engine"]["num_blocks"] > 0


def test_more_streams_than_rows_are_refused(tiny_config):
    with pytest.raises(ConfigError, match="--streams 64"):
        run_cpu(tiny_config, CpuSpec(streams=(1, 64)), serve_arguments(tiny_config))


def test_streams_that_never_decode_together_are_told(tiny_config):
    """Prompts take seven steps each, and the first stream has ended before the third begins."""
    scheduler = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=16)
    config = replace(tiny_config, scheduler=scheduler)
    spec = CpuSpec(repeats=1, num_requests=1, prefill=8, streams=(3,), num_decoded=1, context=104)
    with pytest.raises(ConfigError, match="never decoded together"):
        run_cpu(config, spec, serve_arguments(tiny_config))


@pytest.mark.parametrize("field", ["repeats", "num_requests", "prefill", "context", "num_decoded"])
def test_nothing_is_no_measurement(field):
    with pytest.raises(ConfigError, match="at least 1"):
        CpuSpec(**{field: 0})
