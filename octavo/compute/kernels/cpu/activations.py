"""Native gated activation: SiLU, the one that most models gate with. Contract: signatures.GatedActivation."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.compute.kernels import reference
from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_rows
from octavo.model_spec import Activation


def gated_activation(library: NativeLibrary, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    if activation is not Activation.SILU:
        return reference.gated_activation(gate, up, activation)
    check_rows("gate", gate, 2)
    check_rows("up", up, 2)
    if gate.shape != up.shape:
        raise ValueError(f"gate has shape {tuple(gate.shape)}, up {tuple(up.shape)}")
    num_tokens, size = gate.shape
    library.scratch.reads(gate, up)
    out = library.scratch.empty(*gate.shape)
    library.functions.octavo_gated_silu(
        library.isa,
        gate.data_ptr(),
        gate.stride(0),
        up.data_ptr(),
        up.stride(0),
        num_tokens,
        size,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
