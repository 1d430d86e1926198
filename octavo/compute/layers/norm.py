"""Normalisation over the last dim. Owns weights; calculates through the kernel table."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.signatures import RmsNormed
from octavo.compute.quantization.matrix import StoredWeight, take_tensor
from octavo.model_spec import NormKind, NormSpec


class Norm:
    """RMS norm or layer norm, as the spec says; rows of any number, [..., size] -> the same shape."""

    def __init__(
        self, kernels: KernelTable, spec: NormSpec, weight: Tensor | None, bias: Tensor | None
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._weight = weight
        self._bias = bias

    @classmethod
    def take(cls, kernels: KernelTable, spec: NormSpec, weights: dict[str, StoredWeight], name: str) -> Self:
        """Take `<name>.weight` and `<name>.bias`, as far as the spec has them, out of `weights`."""
        weight = take_tensor(weights, f"{name}.weight") if spec.has_weight else None
        bias = take_tensor(weights, f"{name}.bias") if spec.has_bias else None
        return cls(kernels, spec, weight, bias)

    @property
    def before(self) -> RmsNormed | None:
        """The norm as part of a product that follows; None where it cannot be that."""
        return RmsNormed(self._weight, self._spec.eps) if self._spec.kind is NormKind.RMS else None

    def __call__(self, x: Tensor) -> Tensor:  # [..., size]
        if self._spec.kind is NormKind.RMS:
            return self._kernels.rms_norm(x, self._weight, self._spec.eps)
        return self._kernels.layer_norm(x, self._weight, self._bias, self._spec.eps)
