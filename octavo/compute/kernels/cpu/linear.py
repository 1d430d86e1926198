"""Native matrix products over weights packed in panels of 16 rows. Contract: signatures.Linear.

Each output is one chain of multiply-adds in a fixed order, so a row's bits are the same in any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_dense, check_rows
from octavo.compute.kernels.signatures import LinearWeight

PANEL_ROWS = 16


def pack_weight(weight: Tensor) -> LinearWeight:
    """[out, in] -> panels [ceil(out / 16), in, 16]; the last panel is filled up with zeros."""
    check_rows("weight", weight, 2)
    out_size, in_size = weight.shape
    num_panels = -(-out_size // PANEL_ROWS)
    padded = functional.pad(weight, (0, 0, 0, num_panels * PANEL_ROWS - out_size))
    panels = padded.view(num_panels, PANEL_ROWS, in_size).transpose(1, 2).contiguous()
    return LinearWeight(panels, out_size, in_size)


def weight_rows(weight: LinearWeight, row_ids: Tensor) -> Tensor:
    return weight.data[row_ids // PANEL_ROWS, :, row_ids % PANEL_ROWS]


def linear(library: NativeLibrary, x: Tensor, weight: LinearWeight, bias: Tensor | None = None) -> Tensor:
    check_rows("x", x, 2)
    num_tokens, in_size = x.shape
    if in_size != weight.in_size:
        raise ValueError(f"x has {in_size} inputs, the weight {weight.in_size}")
    num_panels = -(-weight.out_size // PANEL_ROWS)
    check_dense("weight", weight.data, torch.float32, (num_panels, in_size, PANEL_ROWS))
    if bias is not None:
        check_dense("bias", bias, torch.float32, (weight.out_size,))
    out = torch.empty((num_tokens, weight.out_size), dtype=torch.float32)
    library.functions.octavo_linear(
        library.isa,
        x.data_ptr(),
        x.stride(0),
        weight.data.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        num_tokens,
        in_size,
        weight.out_size,
        torch.get_num_threads(),
    )
    return out
