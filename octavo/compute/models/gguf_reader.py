"""Reads tensors from a GGUF file as float32, a few rows at a time, so that little is unpacked at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.checkpoint.gguf import GgufFile
from octavo.compute.quantization.ggml_blocks import dequantize

_PLAIN_DTYPES = {
    GgmlType.F32: torch.float32,
    GgmlType.F16: torch.float16,
    GgmlType.BF16: torch.bfloat16,
}


class GgufReader:
    """The tensors of one GGUF file. Opening it checks the whole header; see GgufFile."""

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)

    def stored_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._file.tensors.items()}

    def path_of(self, name: str) -> Path:
        return self._file.path

    def check_readable(self, name: str) -> None:
        """Nothing is left to check: a file with any other number format does not open."""

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a tensor, as float32 in memory of their own."""
        tensor = self._file.tensors[name]
        row_shape = tensor.shape[1:]
        row_size = math.prod(row_shape)
        block_size, block_bytes = tensor.type.block_size, tensor.type.block_bytes
        # Only a quantised vector has rows (single values) that begin inside a block.
        first_block = start * row_size // block_size
        last_block = -(-stop * row_size // block_size)
        view = self._file.tensor_bytes(tensor, first_block * block_bytes, last_block * block_bytes)
        blocks = torch.frombuffer(view, dtype=torch.uint8).view(-1, block_bytes)
        values = dequantize(blocks, tensor.type).flatten()
        skipped = start * row_size - first_block * block_size
        rows = values[skipped : skipped + (stop - start) * row_size].view(stop - start, *row_shape)
        # F32 needs no unpacking, so it would still be a view of the file.
        return rows.clone() if tensor.type.name == "F32" else rows

    def plain_dtype(self, name: str) -> torch.dtype | None:
        """The stored format of numbers that are not packed in blocks."""
        return _PLAIN_DTYPES.get(self._file.tensors[name].type)

    def packed_type(self, name: str) -> GgmlType | None:
        """The tensor's format where it is a matrix of packed blocks, none of which spans two rows."""
        tensor = self._file.tensors[name]
        is_packed = tensor.type.block_size > 1 and len(tensor.shape) == 2
        return tensor.type if is_packed and tensor.shape[1] % tensor.type.block_size == 0 else None

    def read_packed_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a packed matrix as they are: uint8 [stop - start, bytes of a row].

        The memory is the file's: copy it before `release`.
        """
        tensor = self._file.tensors[name]
        row_bytes = tensor.shape[1] // tensor.type.block_size * tensor.type.block_bytes
        view = self._file.tensor_bytes(tensor, start * row_bytes, stop * row_bytes)
        return torch.frombuffer(view, dtype=torch.uint8).view(stop - start, row_bytes)

    def release(self, name: str) -> None:
        """Let go of the memory that reading the tensor took."""
        self._file.release(self._file.tensors[name])

    def close(self) -> None:
        self._file.close()
