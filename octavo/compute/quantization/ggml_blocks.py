"""ggml's block formats, unpacked to float32 with torch, in exactly ggml's order of operations.

Layouts: ggml-common.h and ggml-quants.c (dequantize_row_*) of https://github.com/ggml-org/ggml.
Inputs are raw bytes; where they came from is not known here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType


def dequantize(data: Tensor, ggml_type: GgmlType) -> Tensor:
    """Values of packed blocks, one after the other.

    Args:
        data: uint8 [num_blocks, ggml_type.block_bytes], contiguous.

    Returns float32 [num_blocks, ggml_type.block_size].
    """
    return _UNPACKERS[ggml_type](data)


def _unpack_f32(data: Tensor) -> Tensor:
    return data.view(torch.float32)


def _unpack_f16(data: Tensor) -> Tensor:
    return data.view(torch.float16).float()


def _unpack_bf16(data: Tensor) -> Tensor:
    return data.view(torch.bfloat16).float()


def _unpack_q4_0(data: Tensor) -> Tensor:
    values = _nibbles(data[:, 2:])
    return values.sub_(8).mul_(_halves(data, 0))


def _unpack_q4_1(data: Tensor) -> Tensor:
    values = _nibbles(data[:, 4:])
    return values.mul_(_halves(data, 0)).add_(_halves(data, 2))


def _unpack_q5_0(data: Tensor) -> Tensor:
    values = _nibbles(data[:, 6:]).add_(_fifth_bits(data[:, 2:6]))
    return values.sub_(16).mul_(_halves(data, 0))


def _unpack_q5_1(data: Tensor) -> Tensor:
    values = _nibbles(data[:, 8:]).add_(_fifth_bits(data[:, 4:8]))
    return values.mul_(_halves(data, 0)).add_(_halves(data, 2))


def _unpack_q8_0(data: Tensor) -> Tensor:
    return data[:, 2:].view(torch.int8).float().mul_(_halves(data, 0))


def _unpack_q2_k(data: Tensor) -> Tensor:
    packed_scales, quants = data[:, :16], data[:, 16:80]
    scales = _halves(data, 80) * (packed_scales & 0xF)  # [num_blocks, 16]
    minimums = _halves(data, 82) * (packed_scales >> 4)
    values = _bit_fields(quants, 32, 2).reshape(-1, 16, 16)
    return _scale(values, scales, minimums)


def _unpack_q3_k(data: Tensor) -> Tensor:
    high_mask, quants, packed_scales = data[:, :32], data[:, 32:96], data[:, 96:108]
    low_scales = _bit_fields(packed_scales[:, :8], 8, 4)  # [num_blocks, 16]
    high_scales = _bit_fields(packed_scales[:, 8:], 4, 2)
    scales = (low_scales + 16 * high_scales).sub_(32).mul_(_halves(data, 108))
    # A third bit that is *not* set takes 4 away.
    high_bits = _bit_fields(high_mask, 32, 1)
    values = (_bit_fields(quants, 32, 2) + 4 * high_bits).sub_(4).reshape(-1, 16, 16)
    return _scale(values, scales)


def _unpack_q4_k(data: Tensor) -> Tensor:
    scales, minimums = _scales_and_minimums(data)
    values = _bit_fields(data[:, 16:], 32, 4).reshape(-1, 8, 32)
    return _scale(values, scales, minimums)


def _unpack_q5_k(data: Tensor) -> Tensor:
    scales, minimums = _scales_and_minimums(data)
    high_bits, quants = data[:, 16:48], data[:, 48:]
    values = _bit_fields(quants, 32, 4) + 16 * _bit_fields(high_bits, 32, 1)
    return _scale(values.reshape(-1, 8, 32), scales, minimums)


def _unpack_q6_k(data: Tensor) -> Tensor:
    low_bits, high_bits, packed_scales = data[:, :128], data[:, 128:192], data[:, 192:208]
    scales = _halves(data, 208) * packed_scales.view(torch.int8)  # [num_blocks, 16]
    values = _bit_fields(low_bits, 64, 4) + 16 * _bit_fields(high_bits, 32, 2)
    return _scale(values.sub_(32).reshape(-1, 16, 16), scales)


def _halves(data: Tensor, byte: int) -> Tensor:
    """The float16 at `byte` of each block, as float32 [num_blocks, 1]."""
    return data[:, byte : byte + 2].view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Low halves of all bytes, then high halves: uint8 [num_blocks, n] -> float32 [num_blocks, 2 n]."""
    num_bytes = packed.shape[1]
    values = torch.empty(packed.shape[0], 2 * num_bytes, dtype=torch.float32)
    values[:, :num_bytes] = packed & 0xF
    values[:, num_bytes:] = packed >> 4
    return values


def _fifth_bits(packed: Tensor) -> Tensor:
    """Bits in order, each worth 16: uint8 [num_blocks, 4] -> float32 [num_blocks, 32]."""
    bits = packed.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)
    return (bits & 1).flatten(1).float().mul_(16)


def _bit_fields(packed: Tensor, run: int, width: int) -> Tensor:
    """Fields of `width` bits: for each run of bytes all its lowest fields, then all the next, and so on.

    uint8 [num_blocks, n] -> float32 [num_blocks, n * 8 // width].
    """
    shifts = torch.arange(0, 8, width, dtype=torch.uint8).view(-1, 1)
    runs = packed.reshape(packed.shape[0], -1, 1, run)
    return ((runs >> shifts) & ((1 << width) - 1)).flatten(1).float()


def _scales_and_minimums(data: Tensor) -> tuple[Tensor, Tensor]:
    """The eight six-bit scales and minimums of Q4_K and Q5_K, each [num_blocks, 8]."""
    first, second, third = data[:, 4:8], data[:, 8:12], data[:, 12:16]
    scales = torch.cat([first & 0x3F, (third & 0xF) | ((first >> 2) & 0x30)], dim=1)
    minimums = torch.cat([second & 0x3F, (third >> 4) | ((second >> 2) & 0x30)], dim=1)
    return _halves(data, 0) * scales, _halves(data, 2) * minimums


def _scale(values: Tensor, scales: Tensor, minimums: Tensor | None = None) -> Tensor:
    """values * scales - minimums, with one scale for each part of a block, flattened to blocks."""
    scaled = values.mul_(scales.unsqueeze(-1))
    if minimums is not None:
        scaled = scaled.sub_(minimums.unsqueeze(-1))
    return scaled.flatten(1)


_UNPACKERS: dict[GgmlType, Callable[[Tensor], Tensor]] = {
    GgmlType.F32: _unpack_f32,
    GgmlType.F16: _unpack_f16,
    GgmlType.BF16: _unpack_bf16,
    GgmlType.Q4_0: _unpack_q4_0,
    GgmlType.Q4_1: _unpack_q4_1,
    GgmlType.Q5_0: _unpack_q5_0,
    GgmlType.Q5_1: _unpack_q5_1,
    GgmlType.Q8_0: _unpack_q8_0,
    GgmlType.Q2_K: _unpack_q2_k,
    GgmlType.Q3_K: _unpack_q3_k,
    GgmlType.Q4_K: _unpack_q4_k,
    GgmlType.Q5_K: _unpack_q5_k,
    GgmlType.Q6_K: _unpack_q6_k,
}
