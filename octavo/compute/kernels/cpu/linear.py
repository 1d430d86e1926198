"""Native matrix products over weights packed in panels of 16 rows. Contract: signatures.Linear.

Each output is one chain of multiply-adds in a fixed order, so a row's bits are the same in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels.cpu.activations import activate
from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_dense, check_rows
from octavo.compute.kernels.cpu.threads import kernel_threads
from octavo.compute.kernels.signatures import Before, Gated, LinearWeight, PackedMatrix, RmsNormed
from octavo.compute.quantization.matrix import QuantizedMatrix, StoredWeight
from octavo.model_spec import Activation

PANEL_ROWS = 16
# To be raised whenever the same matrix is laid out differently: files of panels outlive the program.
LAYOUT_VERSION = 1
_AS_IT_IS, _RMS_NORMED, _GATED_SILU = range(3)  # BeforeKind of lowbit.h
# Formats whose blocks stay as they are in memory; others are unpacked to float32 when a model loads.
LOW_BIT_TYPES = frozenset(
    {
        GgmlType.Q4_0,
        GgmlType.Q4_1,
        GgmlType.Q5_0,
        GgmlType.Q5_1,
        GgmlType.Q8_0,
        GgmlType.Q3_K,
        GgmlType.Q4_K,
        GgmlType.Q5_K,
        GgmlType.Q6_K,
    }
)


# Formats of plain matrices that stay as they are, widened as they are multiplied.
NARROW_TYPES = {torch.float16: GgmlType.F16, torch.bfloat16: GgmlType.BF16}


def pack_weight(library: NativeLibrary, matrices: Sequence[StoredWeight]) -> LinearWeight:
    """[out, in] -> panels of 16 rows; the last one is filled up with zeros."""
    parts = tuple(
        _pack_floats(matrix) if isinstance(matrix, Tensor) else _pack_blocks(library, matrix)
        for matrix in matrices
    )
    return LinearWeight(parts, sum(part.out_size for part in parts), matrices[0].shape[1])


def _pack_floats(weight: Tensor) -> PackedMatrix:
    """-> [ceil(out / 16), in, 16], in the numbers' own format."""
    if weight.dtype not in NARROW_TYPES:
        check_rows("weight", weight, 2)
    out_size, in_size = weight.shape
    num_panels = -(-out_size // PANEL_ROWS)
    padded = functional.pad(weight, (0, 0, 0, num_panels * PANEL_ROWS - out_size))
    panels = padded.view(num_panels, PANEL_ROWS, in_size).transpose(1, 2).contiguous()
    return PackedMatrix(panels, out_size, NARROW_TYPES.get(weight.dtype))


def _pack_blocks(library: NativeLibrary, matrix: QuantizedMatrix) -> PackedMatrix:
    """-> uint8, as lowbit.h says."""
    out_size, in_size = matrix.shape
    num_bytes = library.functions.octavo_lowbit_bytes(matrix.ggml_type.type_id, out_size, in_size)
    if num_bytes == 0:
        return _pack_floats(matrix.dequantize())
    check_dense("rows", matrix.rows, torch.uint8, tuple(matrix.rows.shape))
    panels = torch.empty(num_bytes, dtype=torch.uint8)
    does_not_fit = library.functions.octavo_lowbit_pack(
        matrix.ggml_type.type_id,
        matrix.rows.data_ptr(),
        out_size,
        in_size,
        panels.data_ptr(),
        kernel_threads(),
    )
    if does_not_fit:  # scales beyond what the panels can hold: no sane file has them
        return _pack_floats(matrix.dequantize())
    return PackedMatrix(panels, out_size, matrix.ggml_type)


def weight_rows(library: NativeLibrary, weight: LinearWeight, row_ids: Tensor) -> Tensor:
    part = weight.parts[0]
    check_dense("row_ids", row_ids, torch.int64, (row_ids.shape[0],))
    out = library.scratch.empty(row_ids.shape[0], weight.in_size)
    wrong_index = library.functions.octavo_weight_rows(
        GgmlType.F32.type_id if part.ggml_type is None else part.ggml_type.type_id,
        part.data.data_ptr(),
        weight.out_size,
        weight.in_size,
        row_ids.data_ptr(),
        row_ids.shape[0],
        out.data_ptr(),
        kernel_threads(),
    )
    if wrong_index:
        raise IndexError(f"row id {wrong_index - 1} of the call is not one of {weight.out_size}")
    return out


def linear(
    library: NativeLibrary,
    x: Tensor,
    weight: LinearWeight,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    before: Before | None = None,
) -> Tensor:
    x, before = _native_inputs(x, before)
    _check_product(x, weight, bias, before)
    num_tokens = x.shape[0]
    if add_to is None:
        out = library.scratch.empty(num_tokens, weight.out_size)
    else:
        check_dense("add_to", add_to, torch.float32, (num_tokens, weight.out_size))
        out = add_to
    library.scratch.reads(x, out)
    first = 0
    for part in weight.parts:
        library.functions.octavo_linear(
            library.isa,
            *_weight_arguments(part, weight.in_size, bias, first),
            *_input_arguments(x, before),
            out.data_ptr() + 4 * first,
            out.shape[1],
            add_to is not None,
            kernel_threads(),
        )
        first += part.out_size
    return out


def choose_greedy(
    library: NativeLibrary,
    x: Tensor,
    weight: LinearWeight,
    bias: Tensor | None = None,
    before: Before | None = None,
) -> tuple[Tensor, Tensor]:
    if len(weight.parts) > 1:
        raise ValueError("the likeliest is chosen from one matrix, not from several")
    x, before = _native_inputs(x, before)
    _check_product(x, weight, bias, before)
    places, maxima = torch.empty(x.shape[0], dtype=torch.int64), torch.empty(x.shape[0])
    library.functions.octavo_choose_greedy(
        library.isa,
        *_weight_arguments(weight.parts[0], weight.in_size, bias, 0),
        *_input_arguments(x, before),
        places.data_ptr(),
        maxima.data_ptr(),
        kernel_threads(),
    )
    return places, maxima


def _native_inputs(x: Tensor, before: Before | None) -> tuple[Tensor, Before | None]:
    """What the native product cannot do on the way in is done here."""
    if isinstance(before, Gated) and before.activation is not Activation.SILU:
        gate, up = x.chunk(2, dim=-1)
        return activate(gate, before.activation).mul_(up), None
    return x, before


def _check_product(x: Tensor, weight: LinearWeight, bias: Tensor | None, before: Before | None) -> None:
    check_rows("x", x, 2)
    width = weight.in_size * (2 if isinstance(before, Gated) else 1)
    if x.shape[1] != width:
        raise ValueError(f"x has {x.shape[1]} columns, and the product takes {width}")
    if bias is not None:
        check_dense("bias", bias, torch.float32, (weight.out_size,))
    if isinstance(before, RmsNormed) and before.weight is not None:
        check_dense("norm weight", before.weight, torch.float32, (weight.in_size,))


def _weight_arguments(part: PackedMatrix, in_size: int, bias: Tensor | None, first: int) -> tuple[Any, ...]:
    return (
        GgmlType.F32.type_id if part.ggml_type is None else part.ggml_type.type_id,
        part.data.data_ptr(),
        None if bias is None else bias.data_ptr() + 4 * first,
        in_size,
        part.out_size,
    )


def _input_arguments(x: Tensor, before: Before | None) -> tuple[Any, ...]:
    match before:
        case None:
            prepared: tuple[Any, ...] = (_AS_IT_IS, None, 0.0)
        case RmsNormed():
            norm_weight = None if before.weight is None else before.weight.data_ptr()
            prepared = (_RMS_NORMED, norm_weight, before.eps)
        case Gated():
            prepared = (_GATED_SILU, None, 0.0)
    return (*prepared, x.data_ptr(), x.stride(0), x.shape[0])
