"""Tables of rotary position angles, in float32 as the models were trained with them.

Owns how a RopeSpec becomes cosines and sines; applying them is the kernel `rotate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.model_spec import LinearRopeScaling, Llama3RopeScaling, RopeFactorTensor, RopeSpec


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """Cosine and sine of each position's angles; both [max_positions, head_dim // 2] float32."""

    cos: Tensor
    sin: Tensor


def build_rotary_tables(
    spec: RopeSpec, head_dim: int, max_positions: int, *, factors: Tensor | None, device: torch.device
) -> RotaryTables:
    """Angles `position * inverse_frequency` for each position that the model can reach.

    Args:
        factors: the checkpoint's `rope_factors` [head_dim // 2], where the spec's scaling asks for them.
    """
    # Always computed on the CPU: exp and pow differ between devices by enough to move a close argmax.
    frequencies = _inverse_frequencies(spec, head_dim, factors)
    angles = torch.arange(max_positions, dtype=torch.float32)[:, None] * frequencies[None, :]
    return RotaryTables(angles.cos().to(device), angles.sin().to(device))


def _inverse_frequencies(spec: RopeSpec, head_dim: int, factors: Tensor | None) -> Tensor:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies: Tensor = 1.0 / (spec.theta**exponents)
    match spec.scaling:
        case None:
            return frequencies
        case LinearRopeScaling(factor=factor):
            return frequencies / factor
        case Llama3RopeScaling() as scaling:
            return _scale_as_llama3(frequencies, scaling)
        case RopeFactorTensor():
            if factors is None:
                raise ValueError("this model's rotary positions need the tensor positions.rope_factors")
            return frequencies / factors.to(device="cpu", dtype=torch.float32)


def _scale_as_llama3(frequencies: Tensor, scaling: Llama3RopeScaling) -> Tensor:
    """Llama 3.1's rule: waves longer than the first training context are slowed by `factor`, short ones
    kept, and those between blended by how many of them fit into that context."""
    wave_lengths = 2 * math.pi / frequencies
    waves_in_context = scaling.original_max_positions / wave_lengths
    ramp = (waves_in_context - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept_share = ramp.clamp(0.0, 1.0)
    return (1 - kept_share) * frequencies / scaling.factor + kept_share * frequencies
