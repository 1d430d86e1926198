"""A weight matrix in the packed form in which its file stores it. Owns no arithmetic but unpacking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.ggml_blocks import dequantize


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedMatrix:
    """[out_size, in_size] numbers in ggml's blocks, each block within one row.

    Attributes:
        rows: uint8 [out_size, bytes of a row], contiguous.
        ggml_type: the blocks' format.
    """

    rows: Tensor
    ggml_type: GgmlType

    @property
    def shape(self) -> tuple[int, int]:
        out_size, row_bytes = self.rows.shape
        return out_size, row_bytes // self.ggml_type.block_bytes * self.ggml_type.block_size

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def numel(self) -> int:
        return self.shape[0] * self.shape[1]

    def dequantize(self) -> Tensor:
        """The numbers that the blocks stand for: float32 [out_size, in_size]."""
        blocks = self.rows.view(-1, self.ggml_type.block_bytes)
        return dequantize(blocks, self.ggml_type).view(self.shape)


StoredWeight = Tensor | QuantizedMatrix
"""A parameter as it was loaded: plain numbers, or a matrix that is still packed."""


def stack_rows(matrices: Sequence[StoredWeight]) -> list[StoredWeight]:
    """One matrix under the other, neighbours of the same format joined into one."""
    stacked: list[StoredWeight] = []
    for matrix in matrices:
        last = stacked[-1] if stacked else None
        if isinstance(last, Tensor) and isinstance(matrix, Tensor) and last.dtype is matrix.dtype:
            stacked[-1] = torch.cat([last, matrix])
        elif (
            isinstance(last, QuantizedMatrix)
            and isinstance(matrix, QuantizedMatrix)
            and last.ggml_type is matrix.ggml_type
        ):
            stacked[-1] = QuantizedMatrix(torch.cat([last.rows, matrix.rows]), last.ggml_type)
        else:
            stacked.append(matrix)
    return stacked


def take_tensor(weights: dict[str, StoredWeight], name: str) -> Tensor:
    """Take a parameter that is never packed (a vector, a table) out of `weights`.

    Raises:
        KeyError: there is none of this name.
        TypeError: it is packed.
    """
    weight = weights.pop(name)
    if not isinstance(weight, Tensor):
        raise TypeError(f"{name} is packed as {weight.ggml_type.name}, where plain numbers are needed")
    return weight
