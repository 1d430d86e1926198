"""Linear layers, alone or several stacked into one product. Owns weights; multiplies through the table."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.signatures import Gated, LinearWeight
from octavo.compute.layers.norm import Norm
from octavo.compute.quantization.matrix import StoredWeight, stack_rows, take_tensor


class Linear:
    """`norm(x) @ weight.T + bias`, over the last dim of x [num_tokens, in_size] -> [num_tokens, out_size].

    The norm is optional. One with statistics of a row alone goes into the product itself.
    """

    def __init__(
        self,
        kernels: KernelTable,
        weight: LinearWeight,
        bias: Tensor | None = None,
        *,
        norm: Norm | None = None,
    ) -> None:
        self.weight = weight
        self.bias = bias  # [out_size]
        self._kernels = kernels
        self._before = None if norm is None else norm.before
        self._norm = norm if self._before is None else None

    @classmethod
    def take(
        cls, kernels: KernelTable, weights: dict[str, StoredWeight], *names: str, norm: Norm | None = None
    ) -> Self:
        """Take `<name>.weight` and `<name>.bias` (where there is one) out of `weights`.

        Several names are stacked by rows in that order: one product over the same input is faster than
        several small ones.
        """
        matrices = stack_rows([weights.pop(f"{name}.weight") for name in names])
        biases = [take_tensor(weights, f"{name}.bias") for name in names if f"{name}.bias" in weights]
        return cls(kernels, kernels.pack_weight(matrices), torch.cat(biases) if biases else None, norm=norm)

    def __call__(self, x: Tensor, add_to: Tensor | None = None, *, gate: Gated | None = None) -> Tensor:
        """The product; `add_to` [num_tokens, out_size] is added to in place.

        With a gate x is [num_tokens, 2 * in_size], gate and up side by side; not together with a norm.
        """
        return self._kernels.linear(self._normed(x), self.weight, self.bias, add_to, gate or self._before)

    def choose_greedy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Place and value of the largest of each row that the product would have; see ChooseGreedy."""
        return self._kernels.choose_greedy(self._normed(x), self.weight, self.bias, self._before)

    def _normed(self, x: Tensor) -> Tensor:
        return x if self._norm is None else self._norm(x)
