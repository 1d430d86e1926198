"""The feed-forward part of a decoder layer. Owns its projections."""

from __future__ import annotations

from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.signatures import Gated
from octavo.compute.layers.linear import Linear
from octavo.compute.layers.norm import Norm
from octavo.compute.quantization.matrix import StoredWeight
from octavo.model_spec import MlpSpec


class Mlp:
    """`down(act(gate(x)) * up(x))` of x = norm(hidden) if gated, else `down(act(up(x)))`."""

    def __init__(
        self,
        kernels: KernelTable,
        spec: MlpSpec,
        weights: dict[str, StoredWeight],
        prefix: str,
        norm: Norm,
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._gate = Gated(spec.activation) if spec.is_gated else None
        names = ("mlp.gate", "mlp.up") if spec.is_gated else ("mlp.up",)
        self._expand = Linear.take(kernels, weights, *(prefix + name for name in names), norm=norm)
        self._down = Linear.take(kernels, weights, f"{prefix}mlp.down")

    def __call__(self, hidden: Tensor) -> None:
        # hidden: [num_tokens, hidden_size]; the result is added to it in place
        expanded = self._expand(hidden)
        if self._gate is None:
            expanded = self._kernels.activate(expanded, self._spec.activation)
        self._down(expanded, hidden, gate=self._gate)
