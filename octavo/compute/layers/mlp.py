"""The feed-forward part of a decoder layer. Owns its projections."""

from __future__ import annotations

from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.layers.linear import Linear
from octavo.compute.quantization.matrix import StoredWeight
from octavo.model_spec import MlpSpec


class Mlp:
    """`down(act(gate(x)) * up(x))` if gated, else `down(act(up(x)))`."""

    def __init__(
        self, kernels: KernelTable, spec: MlpSpec, weights: dict[str, StoredWeight], prefix: str
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        names = ("mlp.gate", "mlp.up") if spec.is_gated else ("mlp.up",)
        self._expand = Linear.take(kernels, weights, *(prefix + name for name in names))
        self._down = Linear.take(kernels, weights, f"{prefix}mlp.down")

    def __call__(self, x: Tensor, add_to: Tensor) -> None:
        # x, add_to: [num_tokens, hidden_size]; the result is added to the latter in place
        expanded = self._expand(x)
        if self._spec.is_gated:
            size = self._spec.intermediate_size
            gate, up = expanded[:, :size], expanded[:, size:]
            self._down(self._kernels.gated_activation(gate, up, self._spec.activation), add_to)
        else:
            self._down(self._kernels.activate(expanded, self._spec.activation), add_to)
