"""Tiny random models on disk, for tests: a transformers folder of any family, and the same as GGUF.

Weights are drawn so that logits are far from flat: a wrong layer, rotation or bias shows in the output.
Nothing here is trained, and nothing outside the given folder is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB_SIZE = 300

_LLAMA_LIKE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,  # groups of three: an odd size catches kernels that assume powers of two
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA_LIKE | {"rms_norm_eps": 1e-5},
    "mistral": _LLAMA_LIKE | {"sliding_window": 24},
    "qwen2": _LLAMA_LIKE | {"tie_word_embeddings": True},
    "qwen3": _LLAMA_LIKE | {"head_dim": 16, "tie_word_embeddings": True},
    "opt": {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 48,
        "ffn_dim": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
    "gpt2": {
        "vocab_size": VOCAB_SIZE,
        "n_embd": 48,
        "n_layer": 3,
        "n_head": 6,
        "n_positions": 512,
        "bos_token_id": 2,
        "eos_token_id": 2,
    },
}

FAMILIES = tuple(_SETTINGS)

# Name of a variant -> its family and what it overrides: every axis that a family may vary.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("llama", {"head_dim": 20}),
    "llama-multi-query": ("llama", {"num_key_value_heads": 1}),
    "llama-linear-rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "llama3-rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral-full-attention": ("mistral", {"sliding_window": None}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "qwen3-untied": ("qwen3", {"tie_word_embeddings": False, "attention_bias": True}),
    "galactica": (
        "opt",
        {"enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu"},
    ),
    "opt-untied": ("opt", {"tie_word_embeddings": False}),
    "gpt2-wide-mlp": ("gpt2", {"n_inner": 80, "activation_function": "gelu"}),
    "gpt2-unscaled": ("gpt2", {"scale_attn_weights": False}),
}


def make_tiny_model(family: str, folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Write config.json and model.safetensors of a random `family` model of about 100k parameters.

    Args:
        family: one of FAMILIES, or the name of a variant in VARIANTS.
        overrides: settings of the transformers config that differ from the tiny defaults.

    Returns the folder, which is made if it is missing.
    """
    family, variant_overrides = VARIANTS[family]
    settings = _SETTINGS[family] | variant_overrides | overrides
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _draw_weights(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    return folder


def load_reference(folder: Path) -> Any:
    """The same model in transformers: float32, evaluation mode, plain attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def write_byte_tokenizer(folder: Path) -> Path:
    """Add a tokenizer.json to `folder`: one token a byte, ids 0 to 2 special, VOCAB_SIZE ids in all.

    Ids 3 to 258 are the bytes 0 to 255; those above are unused words.
    """
    byte_letters = _byte_level_letters()
    words = ["<pad>", "<s>", "</s>", *byte_letters]
    words += [f"<unused{index}>" for index in range(VOCAB_SIZE - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(words[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names})
    )
    return folder


def write_gguf(
    folder: Path,
    path: Path,
    *,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    rope_factors: list[float] | None = None,
) -> Path:
    """Convert a tiny llama-like or gpt2 folder to one GGUF file, as llama.cpp's converter would.

    Matrices are stored in `quantization`, vectors in F32. Llama and mistral become the architecture
    "llama", whose query and key rows are permuted for interleaved rotation.
    """
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    architecture = {"mistral": "llama"}.get(family, family)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny {family}")
    (_add_gpt2_metadata if family == "gpt2" else _add_llama_metadata)(writer, config)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{index}" for index in range(config["vocab_size"])])
    writer.add_eos_token_id(config["eos_token_id"])
    with safe_open(folder / "model.safetensors", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, array in tensors.items():
        if family == "gpt2":
            gguf_name, value = _gpt2_tensor(name, array)
        else:
            gguf_name, value = _llama_tensor(name, array, config if architecture == "llama" else None)
        stored_type = quantization if value.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            gguf_name,
            gguf.quantize(value, stored_type),
            raw_dtype=stored_type,
        )
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _draw_weights(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 2:
                is_table = "emb" in name or "wte" in name or "wpe" in name
                weight.copy_(noise * (0.5 if is_table else weight.shape[1] ** -0.5))
            elif name.endswith("bias"):
                weight.copy_(noise * 0.1)
            else:
                weight.copy_(1 + noise * 0.1)


def _byte_level_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte, by byte (the table of GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def _add_llama_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if config.get("sliding_window") and config["model_type"] == "mistral":
        writer.add_sliding_window(config["sliding_window"])


def _add_gpt2_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


_LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

_GPT2_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def _llama_tensor(
    name: str, array: np.ndarray, permuted_for: dict[str, Any] | None
) -> tuple[str, np.ndarray]:
    module, suffix = name.rsplit(".", 1)
    prefix = ""
    if module.startswith("model.layers."):
        layer, module = module.removeprefix("model.layers.").split(".", 1)
        prefix = f"blk.{layer}."
    if permuted_for is not None and module in ("self_attn.q_proj", "self_attn.k_proj"):
        key = "num_attention_heads" if module == "self_attn.q_proj" else "num_key_value_heads"
        num_heads = permuted_for[key]
        halves = array.reshape(num_heads, 2, array.shape[0] // num_heads // 2, *array.shape[1:])
        array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
    return f"{prefix}{_LLAMA_NAMES[module]}.{suffix}", array


def _gpt2_tensor(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    module, suffix = name.rsplit(".", 1)
    prefix = ""
    if module.startswith("transformer.h."):
        layer, module = module.removeprefix("transformer.h.").split(".", 1)
        prefix = f"blk.{layer}."
        if array.ndim == 2:
            array = np.ascontiguousarray(array.T)
    return f"{prefix}{_GPT2_NAMES[module]}.{suffix}", array
