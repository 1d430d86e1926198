"""Rounds plain matrices to ggml's block formats, as `--quantization` asks. The inverse is ggml_blocks.

Each 32 neighbouring inputs of a row share a scale; nothing is calibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.matrix import QuantizedMatrix

BLOCK_SIZE = 32
ROUNDED_TYPES = (GgmlType.Q8_0, GgmlType.Q4_1)

_LARGEST_HALF = 65504.0
_CHUNK_ROWS_VALUES = 1 << 20  # values that are rounded at a time: the intermediate results stay small


def round_matrix(values: Tensor, ggml_type: GgmlType) -> QuantizedMatrix | None:
    """The nearest matrix in this format, each value rounded by itself.

    Args:
        values: float [out_size, in_size], in_size a multiple of 32.
        ggml_type: Q8_0, symmetric int8; or Q4_1, asymmetric int4: a scale and a minimum.

    Returns:
        The matrix, or None where its float16 scales cannot hold the numbers (NaN, infinity, beyond 8e6).

    Raises:
        ValueError: another format, or rows that are not whole blocks.
    """
    out_size, in_size = values.shape
    if ggml_type not in ROUNDED_TYPES or in_size % BLOCK_SIZE:
        raise ValueError(f"cannot round {tuple(values.shape)} numbers to {ggml_type.name}")
    round_blocks = _round_q8_0 if ggml_type is GgmlType.Q8_0 else _round_q4_1
    rows = torch.empty(out_size, in_size // BLOCK_SIZE * ggml_type.block_bytes, dtype=torch.uint8)
    step = max(1, _CHUNK_ROWS_VALUES // in_size)
    for first in range(0, out_size, step):
        chunk = values[first : first + step].float()
        blocks = round_blocks(chunk.reshape(-1, BLOCK_SIZE))
        if blocks is None:
            return None
        rows[first : first + step] = blocks.view(chunk.shape[0], -1)
    return QuantizedMatrix(rows, ggml_type)


def _round_q8_0(values: Tensor) -> Tensor | None:
    # values: [num_blocks, 32] -> uint8 [num_blocks, 34]
    scales = _to_half(values.abs().amax(1, keepdim=True) / 127)
    if scales is None:
        return None
    # The rounded scale may be a little smaller than the exact one.
    quants = _divide(values, scales).round_().clamp_(-127, 127).to(torch.int8)
    return torch.cat([scales.view(torch.uint8), quants.view(torch.uint8)], dim=1)


def _round_q4_1(values: Tensor) -> Tensor | None:
    # values: [num_blocks, 32] -> uint8 [num_blocks, 20]
    smallest, largest = values.aminmax(dim=1, keepdim=True)
    minimums = _to_half(smallest)
    scales = None if minimums is None else _to_half((largest - minimums.float()) / 15)
    if minimums is None or scales is None:
        return None
    quants = _divide(values - minimums.float(), scales).round_().clamp_(0, 15).to(torch.uint8)
    packed = quants[:, :16] | quants[:, 16:] << 4
    return torch.cat([scales.view(torch.uint8), minimums.view(torch.uint8), packed], dim=1)


def _to_half(numbers: Tensor) -> Tensor | None:
    """Rounded to float16; None where one does not fit (a comparison that NaN fails)."""
    return numbers.half() if bool((numbers.abs() <= _LARGEST_HALF).all()) else None


def _divide(values: Tensor, scales: Tensor) -> Tensor:
    """By each block's scale; zero where that is zero."""
    return (values / scales.float()).masked_fill_(scales == 0, 0.0)
