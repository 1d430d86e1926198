"""A model of a known shape with random weights, as a Hugging Face folder: speed without a download.

Its words mean nothing. Runs no model; the only tensors here are those that are written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from octavo.errors import ConfigError

_SPREAD = 0.02  # standard deviation of OPT's own initialisation


@dataclass(frozen=True, slots=True, kw_only=True)
class OptShape:
    """Sizes of an OPT model (arXiv:2205.01068, table 1)."""

    num_layers: int
    hidden_size: int
    num_heads: int
    ffn_dim: int
    vocab_size: int
    max_positions: int = 2048


SHAPES = {
    "opt-125m": OptShape(num_layers=12, hidden_size=768, num_heads=12, ffn_dim=3072, vocab_size=50272),
    "opt-tiny": OptShape(num_layers=2, hidden_size=64, num_heads=4, ffn_dim=256, vocab_size=512),
}


def write_random_model(shape: str, folder: Path, *, seed: int = 0) -> None:
    """Write config.json, tokenizer.json and model.safetensors (float32): the same bytes for the same seed.

    Raises:
        ConfigError: there is no such shape, or the folder cannot be written or has a model already.
    """
    if shape not in SHAPES:
        raise ConfigError(f"{shape!r}: there is no such shape; there are {', '.join(SHAPES)}")
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder}: there is a model in it already")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(_config(SHAPES[shape]), indent=1), "utf-8")
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(SHAPES[shape])), "utf-8")
        names = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
        tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
        save_file(_weights(SHAPES[shape], seed), folder / "model.safetensors", metadata={"format": "pt"})
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _config(shape: OptShape) -> dict[str, Any]:
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "activation_function": "relu",
        "hidden_size": shape.hidden_size,
        "word_embed_proj_dim": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "ffn_dim": shape.ffn_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_positions,
        "do_layer_norm_before": True,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "torch_dtype": "float32",
    }


def _weights(shape: OptShape, seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return draw.standard_normal((rows, columns), dtype=np.float32) * np.float32(_SPREAD)

    hidden = shape.hidden_size
    found = {
        "model.decoder.embed_tokens.weight": matrix(shape.vocab_size, hidden),
        # Two rows before the first position belong to padding.
        "model.decoder.embed_positions.weight": matrix(shape.max_positions + 2, hidden),
    }
    norms = ["model.decoder.final_layer_norm"]
    for index in range(shape.num_layers):
        layer = f"model.decoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found[f"{layer}.self_attn.{name}.weight"] = matrix(hidden, hidden)
            found[f"{layer}.self_attn.{name}.bias"] = np.zeros(hidden, dtype=np.float32)
        found[f"{layer}.fc1.weight"] = matrix(shape.ffn_dim, hidden)
        found[f"{layer}.fc1.bias"] = np.zeros(shape.ffn_dim, dtype=np.float32)
        found[f"{layer}.fc2.weight"] = matrix(hidden, shape.ffn_dim)
        found[f"{layer}.fc2.bias"] = np.zeros(hidden, dtype=np.float32)
        norms += [f"{layer}.self_attn_layer_norm", f"{layer}.final_layer_norm"]
    for name in norms:
        found[f"{name}.weight"] = np.ones(hidden, dtype=np.float32)
        found[f"{name}.bias"] = np.zeros(hidden, dtype=np.float32)
    return found


def _tokenizer(shape: OptShape) -> dict[str, Any]:
    """One token a byte, as byte-level BPE spells them; the rest of the vocabulary are words of no text."""
    words = ["<s>", "<pad>", "</s>", *_byte_letters()]
    words += [f"<unused{index}>" for index in range(shape.vocab_size - len(words))]
    special = [
        {"id": index, "content": words[index], "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for index in range(3)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": {word: index for index, word in enumerate(words)}, "merges": []}
    return {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": model,
    }


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte (the table of GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]
