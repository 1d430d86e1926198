"""OPT (arXiv:2205.01068) and Galactica (arXiv:2211.09085): layer norms, learned positions, plain MLP."""

from __future__ import annotations

from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family, WeightTemplates
from octavo.families.rotary_decoder import ACTIVATIONS, divide_heads, read_num_layers
from octavo.families.weight_map import TensorSource, named
from octavo.model_spec import (
    AttentionSpec,
    DecoderSpec,
    LearnedPositionsSpec,
    MlpSpec,
    NormKind,
    NormSpec,
)

# The first two rows of the position table belong to padding; token 0 reads row 2.
_POSITION_OFFSET = 2
_NORM_EPS = 1e-5  # fixed in the model's code, so no file says it


def read(config: ConfigReader) -> DecoderSpec:
    config.refuse("quantization_config", "_remove_final_layer_norm")
    hidden_size = config.require_int("hidden_size")
    if config.find_int("word_embed_proj_dim") not in (None, hidden_size):
        raise config.unsupported("word_embed_proj_dim other than hidden_size (OPT-350m)")
    if not config.flag("do_layer_norm_before", default=True):
        raise config.unsupported("do_layer_norm_before false (OPT-350m)")
    num_layers = read_num_layers(config)
    num_heads = config.require_int("num_attention_heads")
    head_dim = divide_heads(config, "hidden_size", hidden_size, num_heads)
    has_bias = config.flag("enable_bias", default=True)
    is_norm_affine = config.flag("layer_norm_elementwise_affine", default=True)
    max_positions = config.require_int("max_position_embeddings")
    return DecoderSpec(
        vocab_size=config.require_int("vocab_size"),
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_positions=max_positions,
        norm=NormSpec(kind=NormKind.LAYER, eps=_NORM_EPS, has_weight=is_norm_affine, has_bias=is_norm_affine),
        positions=LearnedPositionsSpec(num_positions=max_positions, offset=_POSITION_OFFSET),
        attention=AttentionSpec(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            has_qkv_bias=has_bias,
            has_output_bias=has_bias,
            window_by_layer=(None,) * num_layers,
        ),
        mlp=MlpSpec(
            intermediate_size=config.require_int("ffn_dim"),
            activation=config.choose("activation_function", ACTIVATIONS, default="relu"),
            is_gated=False,
            has_bias=has_bias,
        ),
        is_head_tied=config.flag("tie_word_embeddings", default=True),
    )


def templates(spec: DecoderSpec) -> WeightTemplates:
    return {
        "embedding": _decoder("embed_tokens"),
        "positions": _decoder("embed_positions"),
        "layers.*.attention_norm": _decoder("layers.*.self_attn_layer_norm"),
        "layers.*.attention.query": _decoder("layers.*.self_attn.q_proj"),
        "layers.*.attention.key": _decoder("layers.*.self_attn.k_proj"),
        "layers.*.attention.value": _decoder("layers.*.self_attn.v_proj"),
        "layers.*.attention.output": _decoder("layers.*.self_attn.out_proj"),
        "layers.*.mlp_norm": _decoder("layers.*.final_layer_norm"),
        "layers.*.mlp.up": _decoder("layers.*.fc1"),
        "layers.*.mlp.down": _decoder("layers.*.fc2"),
        "final_norm": _decoder("final_layer_norm"),
        "head": named("lm_head"),
    }


def _decoder(name: str) -> TensorSource:
    # Checkpoints saved from the bare decoder lack the outer name.
    return named(f"model.decoder.{name}", f"decoder.{name}")


FAMILY = Family(
    name="opt",
    read=read,
    templates=templates,
    ignored_tensors=(r"(model\.)?decoder\.version",),
)
