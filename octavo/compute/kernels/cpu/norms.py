"""Native RMS norm. Contract: signatures.RmsNorm."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_dense, check_rows
from octavo.compute.kernels.cpu.threads import kernel_threads


def rms_norm(library: NativeLibrary, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    rows = x.unsqueeze(1) if x.dim() == 2 else x  # [num_outer, num_inner, size]
    check_rows("x", rows, 3)
    num_outer, num_inner, size = rows.shape
    if weight is not None:
        check_dense("weight", weight, torch.float32, (size,))
    library.scratch.reads(x)
    out = library.scratch.empty(*x.shape)
    library.functions.octavo_rms_norm(
        library.isa,
        rows.data_ptr(),
        num_outer,
        num_inner,
        size,
        rows.stride(0),
        rows.stride(1),
        None if weight is None else weight.data_ptr(),
        eps,
        out.data_ptr(),
        kernel_threads(),
    )
    return out
