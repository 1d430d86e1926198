"""In which formats a model's matrices stay in memory, and which are rounded when they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.rounding import BLOCK_SIZE

# Both multiply every token's vector or look it up: int4 leaves them in int8, as GGUF's 4-bit files do.
_VOCABULARY_MATRICES = ("embedding.weight", "head.weight")


@dataclass(frozen=True, slots=True)
class MatrixFormats:
    """What becomes of matrices; all else is converted to the format that is computed in.

    Attributes:
        packed: block formats that stay as the file has them.
        plain: formats of plain numbers that do.
        quantization: "int8" or "int4": plain matrices are rounded to it; "none": they are not.
    """

    packed: frozenset[GgmlType] = frozenset()
    plain: frozenset[torch.dtype] = frozenset()
    quantization: str = "none"

    def rounded_type(self, name: str, in_size: int) -> GgmlType | None:
        """What a plain matrix is rounded to, by the parameter's name; None: it is not."""
        if self.quantization == "none" or in_size % BLOCK_SIZE:
            return None
        is_int8 = self.quantization == "int8" or name in _VOCABULARY_MATRICES
        return GgmlType.Q8_0 if is_int8 else GgmlType.Q4_1
