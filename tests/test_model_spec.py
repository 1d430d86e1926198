"""The shapes that a spec implies."""

from __future__ import annotations

from dataclasses import replace

from octavo.model_spec import (
    Activation,
    AttentionSpec,
    DecoderSpec,
    LearnedPositionsSpec,
    MlpSpec,
    NormKind,
    NormSpec,
    RopeSpec,
)

SMOLLM2 = DecoderSpec(
    vocab_size=49152,
    hidden_size=576,
    num_layers=30,
    max_positions=8192,
    norm=NormSpec(kind=NormKind.RMS, eps=1e-5),
    positions=RopeSpec(theta=100_000.0),
    attention=AttentionSpec(
        num_heads=9, num_kv_heads=3, head_dim=64, scale=0.125, window_by_layer=(None,) * 30
    ),
    mlp=MlpSpec(intermediate_size=1536, activation=Activation.SILU, is_gated=True),
    is_head_tied=True,
)


def test_smollm2_has_its_published_size() -> None:
    assert SMOLLM2.num_parameters == 134_515_008
    assert SMOLLM2.kv_bytes_per_token(4) == 46_080


def test_grouped_queries_share_narrower_keys() -> None:
    shapes = SMOLLM2.parameter_shapes()
    assert shapes["layers.29.attention.query.weight"] == (576, 576)
    assert shapes["layers.29.attention.key.weight"] == (192, 576)
    assert "head.weight" not in shapes
    assert "layers.30.attention.key.weight" not in shapes


def test_each_axis_brings_its_own_parameters() -> None:
    layer_norm = NormSpec(kind=NormKind.LAYER, eps=1e-5, has_bias=True)
    spec = replace(
        SMOLLM2,
        norm=layer_norm,
        positions=LearnedPositionsSpec(num_positions=100, offset=2),
        mlp=replace(SMOLLM2.mlp, is_gated=False, has_bias=True),
        attention=replace(SMOLLM2.attention, qk_norm=SMOLLM2.norm, has_qkv_bias=True),
        is_head_tied=False,
        has_head_bias=True,
    )
    shapes = spec.parameter_shapes()
    assert shapes["positions.weight"] == (102, 576)
    assert shapes["final_norm.bias"] == (576,)
    assert "layers.0.mlp.gate.weight" not in shapes
    assert shapes["layers.0.mlp.up.bias"] == (1536,)
    assert shapes["layers.0.attention.query_norm.weight"] == (64,)
    assert shapes["layers.0.attention.value.bias"] == (192,)
    assert shapes["head.bias"] == (49152,)
