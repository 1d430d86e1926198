"""Worker: what it says of itself, and the order of its life."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from octavo.checkpoint.source import resolve_model
from octavo.compute.executor.worker import Worker
from octavo.compute.kernels import for_device
from octavo.compute.kernels.cpu.threads import kernel_threads, set_kernel_threads
from octavo.config import ComputeConfig
from octavo.errors import ConfigError
from octavo.families import ModelDescription, describe_model
from octavo.sampling_params import SamplingParams
from octavo.step import SampleRequest, SequenceSlice, StepPlan
from tests.tiny_models import make_tiny_model

PLAN = StepPlan(
    0, [SequenceSlice(0, [10, 20, 30], 0, [1], SampleRequest(SamplingParams(temperature=0.0), 0, 3))]
)


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    folder: Path = make_tiny_model("qwen2", tmp_path_factory.mktemp("qwen2"))
    return describe_model(resolve_model(str(folder)))


def test_facts_of_a_loaded_model(description: ModelDescription) -> None:
    calls: list[tuple[int, int]] = []
    worker = Worker.load(
        description,
        ComputeConfig(device="cpu", num_threads=1),
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert worker.weight_bytes == description.spec.num_parameters * 4
    is_native = worker.kernels_name != "reference"
    assert worker.kv_bytes_per_element == (2 if is_native else 4)
    assert (worker.device_name, worker.dtype_name) == ("cpu", "float32")
    assert worker.kernels_name
    assert worker.free_memory_bytes() > 2**20
    assert calls
    assert calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_formats_choose_the_same_token(description: ModelDescription, dtype: str) -> None:
    tokens = []
    for name in ("float32", dtype):
        worker = Worker.load(description, ComputeConfig(device="cpu", dtype=name, num_threads=1))
        worker.allocate_kv(num_blocks=4, block_size=4)
        tokens.append(worker.run(PLAN).tokens[0].token_id)
    assert worker.dtype_name == dtype
    assert worker.kv_bytes_per_element == 2
    assert worker.weight_bytes == description.spec.num_parameters * 2
    assert tokens[0] == tokens[1]


def test_number_of_threads_is_set(description: ModelDescription) -> None:
    """The native kernels have their own threads; torch's would spin beside them."""
    before, has_own = torch.get_num_threads(), for_device(torch.device("cpu")).has_own_threads
    try:
        for count in (2, 1):
            Worker.load(description, ComputeConfig(device="cpu", num_threads=count))
            assert kernel_threads() == count
            assert torch.get_num_threads() == (1 if has_own else count)
        Worker.load(description, ComputeConfig(device="cpu", dtype="bfloat16", num_threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        set_kernel_threads(None)


def test_no_threads_are_refused(description: ModelDescription) -> None:
    with pytest.raises(ConfigError, match="--num-threads must be at least 1, not 0"):
        Worker.load(description, ComputeConfig(device="cpu", num_threads=0))


def test_a_plan_before_the_cache(description: ModelDescription) -> None:
    worker = Worker.load(description, ComputeConfig(device="cpu", num_threads=1))
    with pytest.raises(RuntimeError, match="allocate_kv"):
        worker.run(PLAN)
