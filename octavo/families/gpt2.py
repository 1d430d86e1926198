"""GPT-2: layer norms, learned positions, and one fused, transposed matrix for query, key and value."""

from __future__ import annotations

from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family, GgufReading, WeightTemplates
from octavo.families.gguf_header import GgufHeader
from octavo.families.rotary_decoder import ACTIVATIONS, MAX_LAYERS, divide_heads, read_num_layers
from octavo.families.weight_map import RowRange, TensorSource, named
from octavo.model_spec import (
    Activation,
    AttentionSpec,
    DecoderSpec,
    LearnedPositionsSpec,
    MlpSpec,
    NormKind,
    NormSpec,
)


def read(config: ConfigReader) -> DecoderSpec:
    config.refuse("quantization_config", "scale_attn_by_inverse_layer_idx", "add_cross_attention")
    hidden_size = config.require_int("n_embd")
    num_heads = config.require_int("n_head")
    head_dim = divide_heads(config, "n_embd", hidden_size, num_heads)
    is_scaled = config.flag("scale_attn_weights", default=True)
    return _make_spec(
        vocab_size=config.require_int("vocab_size"),
        hidden_size=hidden_size,
        num_layers=read_num_layers(config, "n_layer"),
        num_heads=num_heads,
        scale=head_dim**-0.5 if is_scaled else 1.0,
        num_positions=config.require_int("n_positions"),
        norm_eps=config.require_float("layer_norm_epsilon"),
        intermediate_size=config.find_int("n_inner") or 4 * hidden_size,
        activation=config.choose("activation_function", ACTIVATIONS, default="gelu_new"),
        is_head_tied=config.flag("tie_word_embeddings", default=True),
    )


def read_gguf(header: GgufHeader) -> DecoderSpec:
    metadata = header.metadata
    hidden_size = metadata.require_int("embedding_length")
    num_heads = metadata.require_int("attention.head_count")
    head_dim = divide_heads(metadata, "embedding_length", hidden_size, num_heads)
    return _make_spec(
        vocab_size=header.vocab_size,
        hidden_size=hidden_size,
        num_layers=metadata.require_int("block_count", high=MAX_LAYERS),
        num_heads=num_heads,
        scale=head_dim**-0.5,
        num_positions=metadata.require_int("context_length"),
        norm_eps=metadata.require_float("attention.layer_norm_epsilon"),
        intermediate_size=metadata.require_int("feed_forward_length"),
        activation=Activation.GELU_TANH,
        is_head_tied=header.is_head_tied,
    )


def _make_spec(
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    scale: float,
    num_positions: int,
    norm_eps: float,
    intermediate_size: int,
    activation: Activation,
    is_head_tied: bool,
) -> DecoderSpec:
    return DecoderSpec(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_positions=num_positions,
        norm=NormSpec(kind=NormKind.LAYER, eps=norm_eps, has_bias=True),
        positions=LearnedPositionsSpec(num_positions=num_positions),
        attention=AttentionSpec(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=hidden_size // num_heads,
            scale=scale,
            has_qkv_bias=True,
            has_output_bias=True,
            window_by_layer=(None,) * num_layers,
        ),
        mlp=MlpSpec(
            intermediate_size=intermediate_size, activation=activation, is_gated=False, has_bias=True
        ),
        is_head_tied=is_head_tied,
    )


def templates(spec: DecoderSpec) -> WeightTemplates:
    return {
        "embedding": named(*_spellings("wte")),
        "positions": named(*_spellings("wpe")),
        "layers.*.attention_norm": named(*_spellings("h.*.ln_1")),
        **_fused_qkv(_spellings("h.*.attn.c_attn"), spec.hidden_size, is_transposed=True),
        "layers.*.attention.output": TensorSource(_spellings("h.*.attn.c_proj"), is_transposed=True),
        "layers.*.mlp_norm": named(*_spellings("h.*.ln_2")),
        "layers.*.mlp.up": TensorSource(_spellings("h.*.mlp.c_fc"), is_transposed=True),
        "layers.*.mlp.down": TensorSource(_spellings("h.*.mlp.c_proj"), is_transposed=True),
        "final_norm": named(*_spellings("ln_f")),
        "head": named("lm_head"),
    }


def gguf_templates(spec: DecoderSpec) -> WeightTemplates:
    return {
        "embedding": named("token_embd"),
        "positions": named("position_embd"),
        "layers.*.attention_norm": named("blk.*.attn_norm"),
        **_fused_qkv(("blk.*.attn_qkv",), spec.hidden_size, is_transposed=False),
        "layers.*.attention.output": named("blk.*.attn_output"),
        "layers.*.mlp_norm": named("blk.*.ffn_norm"),
        "layers.*.mlp.up": named("blk.*.ffn_up"),
        "layers.*.mlp.down": named("blk.*.ffn_down"),
        "final_norm": named("output_norm"),
        "head": named("output"),
    }


def _spellings(name: str) -> tuple[str, ...]:
    # The first published checkpoints were saved from the bare decoder, without the outer name.
    return (f"transformer.{name}", name)


def _fused_qkv(names: tuple[str, ...], size: int, *, is_transposed: bool) -> WeightTemplates:
    parts = ("query", "key", "value")
    return {
        f"layers.*.attention.{part}": TensorSource(
            names, is_transposed, rows=RowRange(index * size, (index + 1) * size, len(parts) * size)
        )
        for index, part in enumerate(parts)
    }


FAMILY = Family(
    name="gpt2",
    read=read,
    templates=templates,
    ignored_tensors=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
    gguf=GgufReading(read=read_gguf, templates=gguf_templates),
)
