"""SafetensorsReader: row ranges, release and reopening, and files that lie about what they hold."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from octavo.compute.models.safetensors_reader import SafetensorsReader
from octavo.errors import CheckpointError


def _write_raw(path: Path, header: object, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_row_ranges(dtype: torch.dtype, tmp_path: Path) -> None:
    matrix, vector = torch.randn(7, 3).to(dtype), torch.randn(5).to(dtype)
    save_file({"m": matrix, "v": vector}, tmp_path / "model.safetensors")
    reader = SafetensorsReader(tmp_path)
    assert reader.stored_shapes() == {"m": (7, 3), "v": (5,)}
    assert torch.equal(reader.read_rows("m", 2, 6), matrix[2:6])
    reader.release("m")
    assert torch.equal(reader.read_rows("m", 0, 7), matrix)
    assert torch.equal(reader.read_rows("v", 1, 5), vector[1:])
    assert reader.path_of("v") == tmp_path / "model.safetensors"
    reader.close()


_ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
_DAMAGED = {
    "no JSON": (b"{", b""),
    "no object": ([], b""),
    "header longer than the file": (b" " * 10, b""),
    "out of bounds": ({"t": _ENTRY | {"data_offsets": [0, 80]}}, bytes(8)),
    "backwards": ({"t": _ENTRY | {"data_offsets": [8, 0]}}, bytes(8)),
    "more shape than data": ({"t": _ENTRY | {"shape": [200]}}, bytes(8)),
    "shape overflow": ({"t": _ENTRY | {"shape": [1 << 62, 1 << 62]}}, bytes(8)),
    "negative shape": ({"t": _ENTRY | {"shape": [-2]}}, bytes(8)),
    "unknown dtype": ({"t": _ENTRY | {"dtype": "F99"}}, bytes(8)),
    "overlap": ({"t": _ENTRY, "u": _ENTRY}, bytes(8)),
    "data left over": ({"t": _ENTRY}, bytes(16)),
}


@pytest.mark.parametrize("name", _DAMAGED)
def test_damage_is_one_line_with_the_file(name: str, tmp_path: Path) -> None:
    header, data = _DAMAGED[name]
    path = tmp_path / "model.safetensors"
    _write_raw(path, header, data)
    if name == "header longer than the file":
        path.write_bytes(struct.pack("<Q", 1 << 40) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="not an intact safetensors file") as caught:
        SafetensorsReader(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_one_tensor_in_two_shards(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"t": torch.ones(2)}, tmp_path / name)
    save_file({"t": torch.ones(2), "u": torch.ones(2)}, tmp_path / "b.safetensors")
    index = {"weight_map": {"t": "a.safetensors", "u": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"b\.safetensors: tensor 't': is also in a\.safetensors"):
        SafetensorsReader(tmp_path)
