"""The in-process executor obeys the protocol of the seam, on a real model from disk."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from octavo.checkpoint.source import resolve_model
from octavo.compute.executor.in_process import InProcessExecutor
from octavo.compute.executor.worker import Worker
from octavo.config import ComputeConfig
from octavo.families import describe_model
from octavo.sampling_params import SamplingParams
from octavo.step import Executor, SampleRequest, SequenceSlice, StepPlan
from tests.tiny_models import make_tiny_model

GREEDY = SampleRequest(SamplingParams(temperature=0.0, logprobs=0), seed=0, position=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def load_worker(folder: Path) -> Worker:
    description = describe_model(resolve_model(str(folder)))
    return Worker.load(description, ComputeConfig(device="cpu", num_threads=1))


@pytest.fixture
def worker(folder: Path) -> Worker:
    worker = load_worker(folder)
    worker.allocate_kv(num_blocks=8, block_size=4)
    return worker


def plan_of(step_id: int, block_id: int = 0, last_token_id: int = 30) -> StepPlan:
    return StepPlan(step_id, [SequenceSlice(0, [10, 20, last_token_id], 0, [block_id], GREEDY)])


def test_plans_come_back_in_order(worker: Worker) -> None:
    executor: Executor = InProcessExecutor(worker)
    for step_id, last_token_id in enumerate((30, 40, 30)):
        executor.submit(plan_of(step_id, last_token_id=last_token_id))
    results = [executor.collect() for _ in range(3)]
    assert [result.step_id for result in results] == [0, 1, 2]
    assert results[0].tokens == results[2].tokens
    assert results[0].tokens != results[1].tokens


def test_a_failed_plan_surfaces_in_collect_and_may_come_again(worker: Worker) -> None:
    executor = InProcessExecutor(worker)
    executor.submit(plan_of(0, block_id=8))
    executor.submit(plan_of(1))
    with pytest.raises(ValueError, match="block id 8"):
        executor.collect()
    second = executor.collect()
    assert second.step_id == 1
    executor.submit(plan_of(2))
    assert executor.collect().tokens == second.tokens


def test_nothing_in_flight(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="no plan"):
        InProcessExecutor(worker).collect()


def test_close_releases_the_model_and_is_idempotent(folder: Path) -> None:
    worker = load_worker(folder)
    worker.allocate_kv(num_blocks=8, block_size=4)
    alive = weakref.ref(worker)
    executor = InProcessExecutor(worker)
    executor.submit(plan_of(0))
    del worker
    executor.close()
    executor.close()
    gc.collect()
    assert alive() is None
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(plan_of(1))
    with pytest.raises(RuntimeError, match="closed"):
        executor.collect()
