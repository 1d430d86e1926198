"""Matrix products by torch's own library (MKL, oneDNN, cuBLAS). Contract: signatures.Linear.

Low-bit matrices are unpacked when they are packed for it: these products are exact.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels.reference.activations import gated_activation
from octavo.compute.kernels.reference.norms import rms_norm
from octavo.compute.kernels.signatures import Before, Gated, LinearWeight, PackedMatrix, RmsNormed
from octavo.compute.quantization.matrix import StoredWeight

ACTIVATION_BLOCK = 32
# Products with these sum in 16 bits, which leaves eight to an activation.
FOUR_BIT_TYPES = frozenset({GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q4_K})


def pack_weight(matrices: Sequence[StoredWeight]) -> LinearWeight:
    """torch packs for itself."""
    plain = [matrix if isinstance(matrix, Tensor) else matrix.dequantize() for matrix in matrices]
    weight = plain[0] if len(plain) == 1 else torch.cat(plain)
    return LinearWeight((PackedMatrix(weight, weight.shape[0]),), *weight.shape)


def weight_rows(weight: LinearWeight, row_ids: Tensor) -> Tensor:
    return weight.parts[0].data[row_ids]


def linear(
    x: Tensor,
    weight: LinearWeight,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    before: Before | None = None,
) -> Tensor:
    out = functional.linear(_prepare(x, before), weight.parts[0].data, bias)
    return out if add_to is None else add_to.add_(out)


def choose_greedy(
    x: Tensor, weight: LinearWeight, bias: Tensor | None = None, before: Before | None = None
) -> tuple[Tensor, Tensor]:
    logits = linear(x, weight, bias, before=before).float()
    maxima = logits.amax(dim=1)
    places = torch.arange(weight.out_size, device=x.device)
    # Of a row with NaN no place is equal to the maximum.
    first = torch.where(logits == maxima[:, None], places, weight.out_size).amin(dim=1)
    return first.clamp(max=weight.out_size - 1), maxima


def _prepare(x: Tensor, before: Before | None) -> Tensor:
    match before:
        case None:
            return x
        case RmsNormed():
            return rms_norm(x, before.weight, before.eps)
        case Gated():
            gate, up = x.chunk(2, dim=-1)
            return gated_activation(gate, up, before.activation)


def quantize_activations(x: Tensor, ggml_type: GgmlType) -> Tensor:
    """x as a low-bit product with such a matrix sees it: float32 [num_tokens, in], in a multiple of 32.

    Each row's blocks of 32 are rounded to whole numbers times a scale, the block's largest magnitude over
    the largest number: 127 beside 4-bit weights, 4,095 beside others.
    """
    largest_quant = 127.0 if ggml_type in FOUR_BIT_TYPES else 4095.0
    blocks = x.float().reshape(x.shape[0], -1, ACTIVATION_BLOCK)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    is_zero = largest < 1e-35
    scales = (largest / largest_quant).masked_fill(is_zero, 0.0)
    # One division, as the kernels do it: `127 / largest` would be a reciprocal and a product.
    inverse = torch.full_like(largest, largest_quant).div(largest)
    quants = (blocks * inverse).masked_fill(is_zero, 0.0).round()
    return (quants * scales).flatten(1)
