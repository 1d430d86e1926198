"""Activations whose bits do not depend on the batch; native: SiLU with a gate, the one that most models use.

Contracts: signatures.ActivationFunction, GatedActivation.
"""

from __future__ import annotations

from torch import Tensor

from octavo.compute.kernels import reference
from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.tensors import check_rows
from octavo.compute.kernels.cpu.threads import kernel_threads
from octavo.model_spec import Activation

# sqrt(2 / pi), and the weight of the cube, of GELU's approximation by tanh.
_TANH_SCALE, _TANH_CUBE = 0.7978845608028654, 0.044715


def activate(x: Tensor, activation: Activation) -> Tensor:
    """torch's fused SiLU and GELU compute the last elements of each thread's share by another way than the
    rest, so that an element's bits depend on where the batch puts it. Its exp does not.

    (1 + tanh(u)) / 2 is 1 / (1 + exp(-2u)), without the difference of near-equal numbers at u << 0.
    """
    match activation:
        case Activation.SILU:
            return x / x.neg().exp_().add_(1.0)
        case Activation.GELU_TANH:
            inner = (x * x).mul_(x).mul_(_TANH_CUBE).add_(x).mul_(-2.0 * _TANH_SCALE)
            return x / inner.exp_().add_(1.0)
        case Activation.RELU | Activation.GELU:
            return reference.activate(x, activation)


def gated_activation(library: NativeLibrary, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    if activation is not Activation.SILU:
        return activate(gate, activation).mul_(up)
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
        kernel_threads(),
    )
    return out
