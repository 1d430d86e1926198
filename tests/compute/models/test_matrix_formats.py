"""Which matrices stay as their file has them, which are rounded, and what that does to the scores."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from octavo.checkpoint.source import resolve_model
from octavo.compute.executor.worker import Worker
from octavo.compute.kernels.cpu.linear import LOW_BIT_TYPES, NARROW_TYPES
from octavo.compute.models.matrix_formats import MatrixFormats
from octavo.compute.models.weights import count_weight_bytes, load_weights
from octavo.config import ComputeConfig
from octavo.errors import ConfigError
from octavo.families import ModelDescription, describe_model
from octavo.step import SequenceSlice, StepPlan
from tests.tiny_models import make_tiny_model, write_gguf

CPU = torch.device("cpu")
KEPT = MatrixFormats(LOW_BIT_TYPES, frozenset(NARROW_TYPES))
WIDE: dict[str, int] = {"hidden_size": 96, "intermediate_size": 160}  # rows of whole blocks


def _describe(path: Path) -> ModelDescription:
    return describe_model(resolve_model(str(path)))


def _store_as(folder: Path, dtype: torch.dtype) -> Path:
    path = folder / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    return folder


def _formats(description: ModelDescription, formats: MatrixFormats) -> dict[str, str]:
    weights = load_weights(description, dtype=torch.float32, device=CPU, formats=formats)
    expected = sum(weight.nbytes for weight in weights.values())
    assert count_weight_bytes(description, torch.float32, formats) == expected
    return {
        name: str(weight.dtype) if isinstance(weight, torch.Tensor) else weight.ggml_type.name
        for name, weight in weights.items()
    }


def _scores(description: ModelDescription, kv_cache_dtype: str, **settings: str) -> torch.Tensor:
    worker = Worker.load(
        description,
        ComputeConfig(device="cpu", num_threads=1, **settings),
        kv_cache_dtype=kv_cache_dtype,
    )
    worker.allocate_kv(4, 16)
    plan = StepPlan(0, [SequenceSlice(0, [5, 17, 200, 31, 8, 99, 43], 0, [0])])
    return torch.cat(list(worker.all_logits(plan)))


@pytest.mark.parametrize("dtype", NARROW_TYPES, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_narrow_matrices_stay_and_vectors_are_widened(
    dtype: torch.dtype, family: str, tmp_path: Path
) -> None:
    description = _describe(_store_as(make_tiny_model(family, tmp_path), dtype))
    found = _formats(description, KEPT)
    for name, shape in description.spec.parameter_shapes().items():
        is_factor = len(shape) == 2 and name != "positions.weight"
        assert found[name] == str(dtype if is_factor else torch.float32), name


@pytest.mark.parametrize("stored", ["F16", "BF16"])
def test_those_of_a_gguf_file_too(stored: str, tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    path = write_gguf(folder, tmp_path / "a.gguf", quantization=gguf.GGMLQuantizationType[stored])
    found = _formats(_describe(path), KEPT)
    assert found["layers.0.mlp.up.weight"] == {"F16": "torch.float16", "BF16": "torch.bfloat16"}[stored]


@pytest.mark.parametrize("dtype", NARROW_TYPES, ids=str)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_narrow_weights_give_the_bits_of_float32(dtype: torch.dtype, family: str, tmp_path: Path) -> None:
    description = _describe(_store_as(make_tiny_model(family, tmp_path), dtype))
    narrow = _scores(description, "float32")
    assert torch.equal(narrow, _scores(description, "float32", dtype="float32"))


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_rounding_takes_every_matrix_of_whole_blocks(quantization: str, tmp_path: Path) -> None:
    description = _describe(make_tiny_model("llama", tmp_path, **WIDE))
    found = _formats(description, MatrixFormats(LOW_BIT_TYPES, frozenset(), quantization))
    expected = {"int8": "Q8_0", "int4": "Q4_1"}[quantization]
    assert found["embedding.weight"] == found["head.weight"] == "Q8_0"
    assert found["layers.0.mlp.down.weight"] == found["layers.2.attention.query.weight"] == expected
    assert found["final_norm.weight"] == "torch.float32"


@pytest.mark.parametrize(("quantization", "bound"), [("int8", 0.03), ("int4", 0.3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounded_scores_are_near(quantization: str, bound: float, dtype: torch.dtype, tmp_path: Path) -> None:
    description = _describe(_store_as(make_tiny_model("llama", tmp_path, **WIDE), dtype))
    exact = _scores(description, "float32", dtype="float32")
    rounded = _scores(description, "float32", quantization=quantization)
    difference = float((rounded - exact).norm() / exact.norm())
    assert 1e-4 < difference < bound


def test_what_is_rounded_already_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path, **WIDE)
    path = write_gguf(folder, tmp_path / "a.gguf", quantization=gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(ConfigError, match=r"--quantization int8: .*a.gguf holds rounded matrices .*Q8_0"):
        _formats(_describe(path), MatrixFormats(LOW_BIT_TYPES, frozenset(), "int8"))


def test_rows_that_are_no_whole_blocks_are_refused_where_all_are(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path, hidden_size=48, intermediate_size=80, head_dim=20)
    with pytest.raises(ConfigError, match=r"rows of a multiple of 32$"):
        count_weight_bytes(
            _describe(folder), torch.float32, MatrixFormats(LOW_BIT_TYPES, frozenset(), "int4")
        )
