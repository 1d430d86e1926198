"""Writes a loaded checkpoint as a Hugging Face folder of float weights, for programs that read nothing else.

Values are those that Octavo computes with where nothing is packed; float32 loses none of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from octavo.compute.models.weights import load_weights
from octavo.errors import UnsupportedModelError
from octavo.families import FAMILIES, ModelDescription
from octavo.families.weight_map import expand_weight_map
from octavo.model_spec import Activation, LinearRopeScaling, Llama3RopeScaling, RopeFactorTensor, RopeSpec

# Families whose config.json has the same keys.
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_folder(description: ModelDescription, folder: Path, *, dtype: str) -> None:
    """Write config.json and model.safetensors.

    Args:
        folder: exists already.
        dtype: float32, bfloat16 or float16.

    Raises:
        UnsupportedModelError: the family or a setting of it cannot be written.
        ModelLoadError: the checkpoint cannot be read.
    """
    family = next((family for family in FAMILIES if family.name == description.family), None)
    if family is None or family.name not in _FAMILIES:
        raise UnsupportedModelError(
            f"{description.source.path}: models of the family {description.family!r} cannot be exported "
            f"(those of {', '.join(_FAMILIES)} can)"
        )
    config = _config(description, dtype)
    weights = load_weights(description, dtype=DTYPES[dtype], device=torch.device("cpu"))
    names = expand_weight_map(description.spec, family.templates(description.spec))
    # None is packed: no low-bit format was asked for.
    tensors = {names[name].names[0]: weight for name, weight in weights.items() if isinstance(weight, Tensor)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _config(description: ModelDescription, dtype: str) -> dict[str, Any]:
    """The settings in transformers' words."""
    spec = description.spec
    attention, mlp = spec.attention, spec.mlp
    windows = set(attention.window_by_layer)
    if mlp.activation is not Activation.SILU or not isinstance(spec.positions, RopeSpec) or len(windows) > 1:
        raise UnsupportedModelError(f"{description.source.path}: this variant cannot be exported")
    return {
        "architectures": [f"{description.family.capitalize()}ForCausalLM"],
        "model_type": description.family,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": mlp.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.norm.eps,
        "rope_theta": spec.positions.theta,
        "rope_parameters": {
            "rope_theta": spec.positions.theta,
            **_rope_scaling(description, spec.positions),
        },
        "attention_bias": attention.has_qkv_bias,
        "mlp_bias": mlp.has_bias,
        "sliding_window": windows.pop(),
        "use_sliding_window": False,
        "tie_word_embeddings": spec.is_head_tied,
        "eos_token_id": list(description.eos_token_ids) or None,
        "torch_dtype": dtype,
    }


def _rope_scaling(description: ModelDescription, rope: RopeSpec) -> dict[str, Any]:
    match rope.scaling:
        case None:
            return {"rope_type": "default"}
        case LinearRopeScaling(factor=factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3RopeScaling() as scaling:
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
        case RopeFactorTensor():
            raise UnsupportedModelError(
                f"{description.source.path}: rotary factors in a tensor of their own cannot be exported"
            )
