"""The number formats of GGUF tensors: how many values share a block, and how many bytes it takes.

Names, ids and layouts are ggml's (ggml.h and ggml-common.h). Owns no arithmetic on the values.
"""

from __future__ import annotations

from enum import Enum


class GgmlType(Enum):
    """A format that Octavo reads: its id in the file, values a block, bytes a block."""

    F32 = (0, 1, 4)
    F16 = (1, 1, 2)
    Q4_0 = (2, 32, 18)
    Q4_1 = (3, 32, 20)
    Q5_0 = (6, 32, 22)
    Q5_1 = (7, 32, 24)
    Q8_0 = (8, 32, 34)
    Q2_K = (10, 256, 84)
    Q3_K = (11, 256, 110)
    Q4_K = (12, 256, 144)
    Q5_K = (13, 256, 176)
    Q6_K = (14, 256, 210)
    BF16 = (30, 1, 2)

    def __init__(self, type_id: int, block_size: int, block_bytes: int) -> None:
        self.type_id = type_id
        self.block_size = block_size
        self.block_bytes = block_bytes


TYPES_BY_ID = {ggml_type.type_id: ggml_type for ggml_type in GgmlType}

# Formats that exist but are not read: known by name, so that the refusal can say it.
UNREAD_TYPE_NAMES = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
