"""A GPU from the first day: the same decoder on torch's kernels, and a clear refusal without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from octavo.checkpoint.source import resolve_model
from octavo.compute.executor.device import resolve_device
from octavo.compute.executor.worker import Worker
from octavo.config import ComputeConfig
from octavo.errors import ConfigError
from octavo.families import describe_model
from octavo.sampling_params import SamplingParams
from octavo.step import BlockCopy, SampleRequest, SequenceSlice, StepPlan
from tests.paged_model import PagedModel, load_decoder
from tests.tiny_models import FAMILIES, make_tiny_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PROMPTS = {0: list(range(10, 80)), 1: list(range(200, 219))}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_gpu_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"--device cuda: .*; use --device cpu") as caught:
        resolve_device("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_same_logits_as_on_the_cpu(family: str, tmp_path: Path) -> None:
    folder = make_tiny_model(family, tmp_path)
    device = resolve_device("cuda")
    on_cpu, on_gpu = PagedModel(load_decoder(folder)), PagedModel(load_decoder(folder, device))
    expected, found = on_cpu.feed(PROMPTS), on_gpu.feed(PROMPTS)
    for index, logits in expected.items():
        torch.testing.assert_close(found[index], logits, rtol=0.0, atol=1e-3)
    expected, found = on_cpu.feed({1: [5], 0: [6]}), on_gpu.feed({1: [5], 0: [6]})
    for index, logits in expected.items():
        torch.testing.assert_close(found[index], logits, rtol=0.0, atol=1e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_worker_on_a_gpu(dtype: str, tmp_path: Path) -> None:
    """Prefill, copy a block, decode both branches, with every kind of row that sampling knows."""
    description = describe_model(resolve_model(str(make_tiny_model("llama", tmp_path))))
    tokens = []
    for device in ("cuda", "cpu"):
        worker = Worker.load(description, ComputeConfig(device=device, dtype=dtype, num_threads=1))
        worker.allocate_kv(num_blocks=32, block_size=16)
        assert worker.free_memory_bytes() > 0
        prompt = PROMPTS[1]
        first = worker.run(
            StepPlan(
                0,
                [
                    SequenceSlice(
                        0, prompt, 0, [4, 9], None, prompt_logprob_targets=prompt[1:], num_prompt_logprobs=2
                    )
                ],
            )
        )
        assert len(first.prompt_logprobs[0]) == len(prompt) - 1
        wishes = [
            SamplingParams(temperature=0.0, logprobs=2),
            SamplingParams(temperature=0.8, top_p=0.9, top_k=20, seed=1),
        ]
        slices = [
            SequenceSlice(i, [7], len(prompt), [4, block_id], SampleRequest(wishes[i], 1, len(prompt) + 1))
            for i, block_id in enumerate((9, 17))
        ]
        result = worker.run(StepPlan(1, slices, [BlockCopy(9, 17)]))
        assert result.failures == {}
        assert set(result.tokens) == {0, 1}
        tokens.append(result.tokens[0].token_id)
    if dtype == "float32":
        assert tokens[0] == tokens[1]
