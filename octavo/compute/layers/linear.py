"""Linear layers, alone or several stacked into one product. Owns weights; multiplies through the table."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.signatures import LinearWeight
from octavo.compute.quantization.matrix import StoredWeight, stack_rows, take_tensor


class Linear:
    """`x @ weight.T + bias`, over the last dim of x [num_tokens, in_size] -> [num_tokens, out_size]."""

    def __init__(self, kernels: KernelTable, weight: LinearWeight, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias  # [out_size]
        self._linear = kernels.linear

    @classmethod
    def take(cls, kernels: KernelTable, weights: dict[str, StoredWeight], *names: str) -> Self:
        """Take `<name>.weight` and `<name>.bias` (where there is one) out of `weights`.

        Several names are stacked by rows in that order: one product over the same input is faster than
        several small ones.
        """
        matrices = stack_rows([weights.pop(f"{name}.weight") for name in names])
        biases = [take_tensor(weights, f"{name}.bias") for name in names if f"{name}.bias" in weights]
        return cls(kernels, kernels.pack_weight(matrices), torch.cat(biases) if biases else None)

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        # x: [num_tokens, in_size]; add_to: [num_tokens, out_size], the result is added to it in place
        return self._linear(x, self.weight, self.bias, add_to)
