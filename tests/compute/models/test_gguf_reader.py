"""GgufReader: any range of rows of any format, in memory of its own."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from octavo.checkpoint.ggml_type import GgmlType
from octavo.checkpoint.starter import find_starter
from octavo.compute.models.gguf_reader import GgufReader


def _write(path: Path, **tensors: tuple[np.ndarray, GgmlType]) -> Path:
    """`tensors`: name -> (packed bytes [..., row bytes], format)."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, (data, ggml_type) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType(ggml_type.type_id))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("ggml_type", list(GgmlType), ids=lambda ggml_type: ggml_type.name)
def test_row_ranges_of_every_format(ggml_type: GgmlType, tmp_path: Path) -> None:
    row_bytes = 2 * 256 // ggml_type.block_size * ggml_type.block_bytes
    data = np.random.default_rng(1).integers(0, 256, (5, row_bytes), dtype=np.uint8)
    reader = GgufReader(_write(tmp_path / "m.gguf", w=(data, ggml_type)))
    assert reader.stored_shapes() == {"w": (5, 512)}
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(data, gguf.GGMLQuantizationType(ggml_type.type_id)).astype(np.float32)
    for start, stop in ((0, 5), (1, 4), (4, 5)):
        rows = reader.read_rows("w", start, stop)
        np.testing.assert_array_equal(rows.numpy(), expected[start:stop])
    reader.close()


def test_a_quantised_vector_may_be_cut_inside_a_block(tmp_path: Path) -> None:
    values = np.random.default_rng(2).standard_normal(96).astype(np.float32)
    data = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    reader = GgufReader(_write(tmp_path / "m.gguf", b=(data, GgmlType.Q8_0)))
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(reader.read_rows("b", 20, 70).numpy(), expected[20:70])
    reader.close()


def test_rows_outlive_the_file() -> None:
    reader = GgufReader(find_starter())
    rows = reader.read_rows("output_norm.weight", 0, 576)
    before = rows.clone()
    reader.release("output_norm.weight")
    reader.close()
    assert torch.equal(rows, before)
