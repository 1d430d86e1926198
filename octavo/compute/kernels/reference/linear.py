"""Matrix products by torch's own library (MKL, oneDNN, cuBLAS). Contract: signatures.Linear."""

from torch import Tensor
from torch.nn import functional

from octavo.compute.kernels.signatures import LinearWeight


def pack_weight(weight: Tensor) -> LinearWeight:
    """torch packs for itself."""
    return LinearWeight(weight, *weight.shape)


def weight_rows(weight: LinearWeight, row_ids: Tensor) -> Tensor:
    return weight.data[row_ids]


def linear(x: Tensor, weight: LinearWeight, bias: Tensor | None = None) -> Tensor:
    return functional.linear(x, weight.data, bias)
