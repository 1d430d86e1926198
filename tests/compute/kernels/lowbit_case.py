"""Makes matrices in ggml's block formats, for the kernels' tests."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.matrix import QuantizedMatrix

# Byte of each float16 within a block.
_HALVES = {
    GgmlType.Q4_0: (0,),
    GgmlType.Q4_1: (0, 2),
    GgmlType.Q5_0: (0,),
    GgmlType.Q5_1: (0, 2),
    GgmlType.Q8_0: (0,),
    GgmlType.Q3_K: (108,),
    GgmlType.Q4_K: (0, 2),
    GgmlType.Q5_K: (0, 2),
    GgmlType.Q6_K: (208,),
}


def random_matrix(ggml_type: GgmlType, out_size: int, in_size: int, seed: int = 0) -> QuantizedMatrix:
    """Any bits for the quants; scales and minimums of about 0.01, of either sign."""
    generator = torch.Generator().manual_seed(seed)
    num_blocks = out_size * in_size // ggml_type.block_size
    blocks = torch.randint(
        0, 256, (num_blocks, ggml_type.block_bytes), generator=generator, dtype=torch.uint8
    )
    for byte in _HALVES[ggml_type]:
        halves = (torch.randn(num_blocks, 1, generator=generator) * 0.01).half()
        blocks[:, byte : byte + 2] = halves.view(torch.uint8)
    return QuantizedMatrix(blocks.view(out_size, -1), ggml_type)


def with_scale(matrix: QuantizedMatrix, scale: float) -> QuantizedMatrix:
    """The same quants with this scale in every block, and no minimum."""
    blocks = matrix.rows.clone().view(-1, matrix.ggml_type.block_bytes)
    first = _HALVES[matrix.ggml_type][0]
    blocks[:, first : first + 2] = torch.tensor([scale]).half().view(torch.uint8)
    for byte in _HALVES[matrix.ggml_type][1:]:
        blocks[:, byte : byte + 2] = 0
    return QuantizedMatrix(blocks.view(matrix.rows.shape), matrix.ggml_type)


def exact_product(x: Tensor, matrix: QuantizedMatrix) -> Tensor:
    """In float64."""
    return x.double() @ matrix.dequantize().double().T
