"""Every ggml format unpacks to exactly what the gguf package's reference gives."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.ggml_blocks import dequantize

TYPES = list(GgmlType)


def _assert_same(data: np.ndarray, ggml_type: GgmlType) -> None:
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType(ggml_type.type_id))
    found = dequantize(torch.from_numpy(data), ggml_type)
    assert found.dtype == torch.float32
    assert found.shape == (len(data), ggml_type.block_size)
    np.testing.assert_array_equal(found.numpy(), expected.reshape(len(data), -1).astype(np.float32))


@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda ggml_type: ggml_type.name)
def test_random_bytes(ggml_type: GgmlType) -> None:
    """Every bit pattern of the packed parts; scales may come out as infinity or NaN, which must agree too."""
    data = np.random.default_rng(7).integers(0, 256, (500, ggml_type.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        _assert_same(data, ggml_type)


@pytest.mark.parametrize(
    "ggml_type",
    [GgmlType.F16, GgmlType.BF16, GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q5_0, GgmlType.Q5_1, GgmlType.Q8_0],
    ids=lambda ggml_type: ggml_type.name,
)
def test_quantised_values(ggml_type: GgmlType) -> None:
    """The same on data as a quantiser writes it, whose values must also come out near the originals."""
    values = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    data = gguf.quantize(values, gguf.GGMLQuantizationType(ggml_type.type_id))
    blocks = data.view(np.uint8).reshape(-1, ggml_type.block_bytes)
    _assert_same(blocks, ggml_type)
    found = dequantize(torch.from_numpy(blocks), ggml_type).reshape(64, 256)
    assert (found - torch.from_numpy(values)).abs().max() < 0.5


def test_no_blocks() -> None:
    assert dequantize(torch.empty(0, 18, dtype=torch.uint8), GgmlType.Q4_0).shape == (0, 32)
