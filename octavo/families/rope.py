"""Reads rotary positions from either spelling of config.json, and from GGUF metadata.

Scalings that the decoder does not calculate exactly are refused by name.
"""

from __future__ import annotations

from octavo.families.config_reader import ConfigReader
from octavo.families.gguf_header import GgufHeader
from octavo.model_spec import LinearRopeScaling, Llama3RopeScaling, RopeFactorTensor, RopeScaling, RopeSpec

_DEFAULT_THETA = 10000.0


def read_rope(config: ConfigReader) -> RopeSpec:
    """From `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before)."""
    settings = config.section("rope_scaling") or config.section("rope_parameters")
    theta = config.find_float("rope_theta")
    partial_factor = config.find_float("partial_rotary_factor")
    scaling: RopeScaling | None = None
    if settings is not None:
        theta = settings.find_float("rope_theta") or theta
        partial_factor = settings.find_float("partial_rotary_factor") or partial_factor
        scaling = _read_scaling(settings)
    if partial_factor not in (None, 1.0):
        raise config.unsupported(f"rotary positions on a part of each head (factor {partial_factor:g})")
    return RopeSpec(theta=theta or _DEFAULT_THETA, scaling=scaling)


def _read_scaling(settings: ConfigReader) -> RopeScaling | None:
    if settings.has("full_attention") or settings.has("sliding_attention"):
        raise settings.unsupported("different rotary positions for different kinds of layer")
    known = {"default": "default", "linear": "linear", "llama3": "llama3"}
    # Older files say `type`, newer ones `rope_type`; some say both.
    kind = settings.choose("rope_type" if settings.has("rope_type") else "type", known, default="default")
    if kind == "linear":
        return LinearRopeScaling(factor=settings.require_float("factor"))
    if kind == "llama3":
        low, high = settings.require_float("low_freq_factor"), settings.require_float("high_freq_factor")
        if low >= high:
            raise settings.invalid("low_freq_factor", f"({low:g}) must be below high_freq_factor ({high:g})")
        return Llama3RopeScaling(
            factor=settings.require_float("factor"),
            low_freq_factor=low,
            high_freq_factor=high,
            original_max_positions=settings.require_int("original_max_position_embeddings"),
        )
    return None


def read_gguf_rope(header: GgufHeader, head_dim: int) -> RopeSpec:
    """From `*.rope.*`, and the tensor of frequency factors where there is one."""
    metadata = header.metadata
    rotary_dim = metadata.find_int("rope.dimension_count")
    if rotary_dim not in (None, head_dim):
        raise metadata.unsupported(f"rotary positions on a part of each head ({rotary_dim} of {head_dim})")
    kind = metadata.choose("rope.scaling.type", {"none": "none", "linear": "linear"}, default="linear")
    # llama.cpp's default type is linear with factor 1; its first files called the factor scale_linear.
    factor = metadata.find_float("rope.scaling.factor") or metadata.find_float("rope.scale_linear") or 1.0
    scaling: RopeScaling | None = None
    if kind == "linear" and factor != 1.0:
        scaling = LinearRopeScaling(factor=factor)
    if header.has_tensor("rope_freqs.weight"):
        if scaling is not None:
            raise metadata.unsupported("both rope.scaling and a rope_freqs tensor")
        scaling = RopeFactorTensor()
    return RopeSpec(theta=metadata.find_float("rope.freq_base") or _DEFAULT_THETA, scaling=scaling)
