"""Elementwise activations in torch. Contracts: signatures.ActivationFunction, GatedActivation."""

from torch import Tensor
from torch.nn import functional

from octavo.model_spec import Activation


def activate(x: Tensor, activation: Activation) -> Tensor:
    match activation:
        case Activation.SILU:
            return functional.silu(x)
        case Activation.RELU:
            return functional.relu(x)
        case Activation.GELU:
            return functional.gelu(x)
        case Activation.GELU_TANH:
            return functional.gelu(x, approximate="tanh")


def gated_activation(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    return activate(gate, activation).mul_(up)
