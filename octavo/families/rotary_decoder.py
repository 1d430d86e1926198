"""What llama, mistral, qwen2 and qwen3 share: RMS norms, rotary positions, grouped queries, a gated MLP.

A family passes what sets it apart; nothing here asks which family it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.families.config_reader import ConfigReader
from octavo.families.family import WeightTemplates
from octavo.families.gguf_header import GgufHeader
from octavo.families.rope import read_gguf_rope, read_rope
from octavo.families.weight_map import TensorSource, named
from octavo.model_spec import Activation, AttentionSpec, DecoderSpec, MlpSpec, NormKind, NormSpec

# No model has this many; keeps a damaged count from turning into endless work.
MAX_LAYERS = 10_000

ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
}

# Buffers that older versions of transformers saved; they follow from the settings.
ROTARY_BUFFERS = (
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.(inv_freq|cos_cached|sin_cached)",
    r"model\.rotary_emb\.inv_freq",
)

_CONFIG_REFUSED = (
    "quantization_config",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "num_experts",
    "num_local_experts",
    "is_encoder_decoder",
)

_GGUF_REFUSED = (
    "expert_count",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "attention.clamp_kqv",
    "attention.temperature_scale",
)


def read_config(
    config: ConfigReader,
    *,
    has_qkv_bias: bool = False,
    has_output_bias: bool = False,
    has_mlp_bias: bool = False,
    has_qk_norm: bool = False,
    windows: Sequence[int | None] | None = None,
) -> DecoderSpec:
    """The spec that config.json describes.

    Args:
        windows: one attention window a layer; None where every layer sees all earlier tokens.
    """
    config.refuse(*_CONFIG_REFUSED)
    hidden_size = config.require_int("hidden_size")
    num_layers = read_num_layers(config)
    num_heads = config.require_int("num_attention_heads")
    num_kv_heads = config.find_int("num_key_value_heads") or num_heads
    head_dim = config.find_int("head_dim") or divide_heads(config, "hidden_size", hidden_size, num_heads)
    _check_heads(config, "num_key_value_heads", num_heads, num_kv_heads, head_dim)
    norm = NormSpec(kind=NormKind.RMS, eps=config.require_float("rms_norm_eps"))
    return DecoderSpec(
        vocab_size=config.require_int("vocab_size"),
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_positions=config.require_int("max_position_embeddings"),
        norm=norm,
        positions=read_rope(config),
        attention=AttentionSpec(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            has_qkv_bias=has_qkv_bias,
            has_output_bias=has_output_bias,
            qk_norm=norm if has_qk_norm else None,
            window_by_layer=(None,) * num_layers if windows is None else tuple(windows),
        ),
        mlp=MlpSpec(
            intermediate_size=config.require_int("intermediate_size"),
            activation=config.choose("hidden_act", ACTIVATIONS, default="silu"),
            is_gated=True,
            has_bias=has_mlp_bias,
        ),
        is_head_tied=config.flag("tie_word_embeddings", default=False),
    )


def read_gguf(header: GgufHeader) -> DecoderSpec:
    """The spec that a GGUF header describes; biases and norms are there where their tensors are."""
    metadata = header.metadata
    metadata.refuse(*_GGUF_REFUSED)
    hidden_size = metadata.require_int("embedding_length")
    num_layers = metadata.require_int("block_count", high=MAX_LAYERS)
    num_heads = metadata.require_int("attention.head_count")
    num_kv_heads = metadata.find_int("attention.head_count_kv") or num_heads
    head_dim = metadata.find_int("attention.key_length")
    if head_dim is None:
        head_dim = divide_heads(metadata, "embedding_length", hidden_size, num_heads)
    if metadata.find_int("attention.value_length") not in (None, head_dim):
        raise metadata.unsupported("keys and values of different lengths")
    _check_heads(metadata, "attention.head_count_kv", num_heads, num_kv_heads, head_dim)
    norm = NormSpec(kind=NormKind.RMS, eps=metadata.require_float("attention.layer_norm_rms_epsilon"))
    window = metadata.find_int("attention.sliding_window", low=0) or None
    return DecoderSpec(
        vocab_size=header.vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_positions=metadata.require_int("context_length"),
        norm=norm,
        positions=read_gguf_rope(header, head_dim),
        attention=AttentionSpec(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            has_qkv_bias=header.has_tensor("blk.0.attn_q.bias"),
            has_output_bias=header.has_tensor("blk.0.attn_output.bias"),
            qk_norm=norm if header.has_tensor("blk.0.attn_q_norm.weight") else None,
            window_by_layer=(window,) * num_layers,
        ),
        mlp=MlpSpec(
            intermediate_size=metadata.require_int("feed_forward_length"),
            activation=Activation.SILU,
            is_gated=True,
            has_bias=header.has_tensor("blk.0.ffn_up.bias"),
        ),
        is_head_tied=header.is_head_tied,
    )


def read_num_layers(config: ConfigReader, key: str = "num_hidden_layers") -> int:
    return config.require_int(key, high=MAX_LAYERS)


def read_layer_windows(config: ConfigReader) -> list[int | None]:
    """Windows as the qwen families write them: `layer_types`, or layers from `max_window_layers` on."""
    num_layers = read_num_layers(config)
    is_used = config.flag("use_sliding_window", default=False)
    window = config.require_int("sliding_window") if is_used else None
    kinds = config.find_texts("layer_types")
    if kinds is None:
        first = config.require_int("max_window_layers", low=0) if is_used else num_layers
        return [window if layer >= first else None for layer in range(num_layers)]
    if len(kinds) != num_layers:
        raise config.invalid("layer_types", f"has {len(kinds)} entries for {num_layers} layers")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise config.unsupported(f"layer_types {kind!r} (known: full_attention, sliding_attention)")
    if window is None and "sliding_attention" in kinds:
        raise config.invalid("layer_types", "has sliding_attention, but no sliding_window is in use")
    return [window if kind == "sliding_attention" else None for kind in kinds]


def divide_heads(config: ConfigReader, key: str, hidden_size: int, num_heads: int) -> int:
    """Width of one head where the file does not say it."""
    if hidden_size % num_heads:
        raise config.invalid(key, f"({hidden_size}) is not a multiple of the number of heads ({num_heads})")
    return hidden_size // num_heads


def _check_heads(config: ConfigReader, key: str, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    if num_heads % num_kv_heads:
        raise config.invalid(key, f"({num_kv_heads}) does not divide the number of heads ({num_heads})")
    if head_dim % 2:
        raise config.unsupported(f"heads of odd width ({head_dim}), which cannot be rotated in halves")


def config_templates(spec: DecoderSpec) -> WeightTemplates:
    """The names that transformers gives the tensors."""
    layer = "model.layers.*"
    return {
        "embedding": named("model.embed_tokens"),
        "layers.*.attention_norm": named(f"{layer}.input_layernorm"),
        "layers.*.attention.query": named(f"{layer}.self_attn.q_proj"),
        "layers.*.attention.key": named(f"{layer}.self_attn.k_proj"),
        "layers.*.attention.value": named(f"{layer}.self_attn.v_proj"),
        "layers.*.attention.output": named(f"{layer}.self_attn.o_proj"),
        "layers.*.attention.query_norm": named(f"{layer}.self_attn.q_norm"),
        "layers.*.attention.key_norm": named(f"{layer}.self_attn.k_norm"),
        "layers.*.mlp_norm": named(f"{layer}.post_attention_layernorm"),
        "layers.*.mlp.gate": named(f"{layer}.mlp.gate_proj"),
        "layers.*.mlp.up": named(f"{layer}.mlp.up_proj"),
        "layers.*.mlp.down": named(f"{layer}.mlp.down_proj"),
        "final_norm": named("model.norm"),
        "head": named("lm_head"),
    }


def gguf_templates(spec: DecoderSpec) -> WeightTemplates:
    """The names that llama.cpp gives the tensors."""
    return {
        "embedding": named("token_embd"),
        "positions.rope_factors": named("rope_freqs.weight"),
        "layers.*.attention_norm": named("blk.*.attn_norm"),
        "layers.*.attention.query": named("blk.*.attn_q"),
        "layers.*.attention.key": named("blk.*.attn_k"),
        "layers.*.attention.value": named("blk.*.attn_v"),
        "layers.*.attention.output": named("blk.*.attn_output"),
        "layers.*.attention.query_norm": named("blk.*.attn_q_norm"),
        "layers.*.attention.key_norm": named("blk.*.attn_k_norm"),
        "layers.*.mlp_norm": named("blk.*.ffn_norm"),
        "layers.*.mlp.gate": named("blk.*.ffn_gate"),
        "layers.*.mlp.up": named("blk.*.ffn_up"),
        "layers.*.mlp.down": named("blk.*.ffn_down"),
        "final_norm": named("output_norm"),
        "head": named("output"),
    }


def interleaved_gguf_templates(spec: DecoderSpec) -> WeightTemplates:
    """The same where llama.cpp's converter put each rotary pair side by side (architecture "llama")."""
    attention = spec.attention
    return {
        **gguf_templates(spec),
        "layers.*.attention.query": TensorSource(("blk.*.attn_q",), interleaved_heads=attention.num_heads),
        "layers.*.attention.key": TensorSource(("blk.*.attn_k",), interleaved_heads=attention.num_kv_heads),
    }
