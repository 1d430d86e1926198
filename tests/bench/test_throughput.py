"""The throughput bench on a tiny model: what it reports is what the engine did."""

from __future__ import annotations

import json

import pytest

from octavo.bench.throughput import run_throughput
from octavo.bench.workload import WorkloadSpec
from octavo.config import CacheConfig, ComputeConfig, EngineConfig, ModelConfig, SchedulerConfig
from octavo.errors import ContextLengthError
from tests.tiny_models import make_tiny_model, write_byte_tokenizer


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> EngineConfig:
    folder = write_byte_tokenizer(make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny"))
    return EngineConfig(
        model=ModelConfig(model=str(folder)),
        compute=ComputeConfig(num_threads=1),
        cache=CacheConfig(kv_cache_memory=2**20),
        scheduler=SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
    )


def test_the_report_counts_what_was_done(config):
    spec = WorkloadSpec(num_requests=6, mean_prompt=20, max_prompt=60, mean_output=10, max_output=30)
    seen: list[tuple[int, int]] = []
    report = run_throughput(config, spec, on_token=lambda made, wanted: seen.append((made, wanted)))
    assert seen[-1] == (report.num_output_tokens, report.num_output_tokens)
    assert len(seen) == len(report.steps)
    # A sequence's last token is sampled and never computed.
    computed = sum(step.num_tokens for step in report.steps)
    assert computed == report.num_prompt_tokens + report.num_output_tokens - spec.num_requests
    assert max(step.num_running for step in report.steps) <= 4
    assert report.steps[-1].blocks_used == 0
    assert 0 < report.peak_blocks <= report.engine.num_blocks
    assert 0 < report.mean_waste <= report.max_waste
    assert 0 < report.run_seconds < report.ready_seconds + 60
    assert report.peak_rss_bytes > 2**20


def test_the_json_can_be_recomputed_from_its_steps(config):
    spec = WorkloadSpec(num_requests=2, max_prompt=16, max_output=8)
    numbers = json.loads(json.dumps(run_throughput(config, spec).as_json()))
    assert numbers["benchmark"] == "throughput"
    assert numbers["peak_blocks"] == max(numbers["steps"]["blocks_used"])
    assert numbers["output_tokens_per_second"] == pytest.approx(
        numbers["num_output_tokens"] / numbers["run_seconds"]
    )
    assert {"cpu", "num_cores", "torch", "octavo"} <= numbers["machine"].keys()
    assert numbers["workload"]["num_requests"] == 2


def test_a_workload_that_does_not_fit_is_refused(config):
    with pytest.raises(ContextLengthError, match="512"):
        run_throughput(config, WorkloadSpec(num_requests=1, min_prompt=600, max_prompt=700))
