"""Reference kernels in plain torch: obviously right, on any device, in any float format.

They define what the others must compute. Sums run in float32 whatever the format of the tensors.
"""

from octavo.compute.kernels.reference.activations import activate, gated_activation
from octavo.compute.kernels.reference.attention import paged_attention
from octavo.compute.kernels.reference.kv_blocks import copy_blocks, write_kv
from octavo.compute.kernels.reference.linear import (
    choose_greedy,
    linear,
    pack_weight,
    quantize_activations,
    weight_rows,
)
from octavo.compute.kernels.reference.norms import layer_norm, rms_norm
from octavo.compute.kernels.reference.rotary import rotate

__all__ = [
    "activate",
    "choose_greedy",
    "copy_blocks",
    "gated_activation",
    "layer_norm",
    "linear",
    "pack_weight",
    "paged_attention",
    "quantize_activations",
    "rms_norm",
    "rotate",
    "weight_rows",
    "write_kv",
]
