"""Templates become one source a parameter, and know the shape that the checkpoint must have."""

from __future__ import annotations

from octavo.families.weight_map import RowRange, TensorSource, expand_weight_map, named
from octavo.model_spec import (
    Activation,
    AttentionSpec,
    DecoderSpec,
    MlpSpec,
    NormKind,
    NormSpec,
    RopeFactorTensor,
    RopeSpec,
)

SPEC = DecoderSpec(
    vocab_size=10,
    hidden_size=4,
    num_layers=2,
    max_positions=8,
    norm=NormSpec(kind=NormKind.RMS, eps=1e-5),
    positions=RopeSpec(theta=1e4, scaling=RopeFactorTensor()),
    attention=AttentionSpec(
        num_heads=1, num_kv_heads=1, head_dim=4, scale=0.5, has_qkv_bias=True, window_by_layer=(None, None)
    ),
    mlp=MlpSpec(intermediate_size=6, activation=Activation.SILU, is_gated=False),
    is_head_tied=True,
)


def test_layers_and_suffixes_are_filled_in() -> None:
    query = TensorSource(("a.*.q", "*.q"), is_transposed=True, rows=RowRange(0, 4, 12))
    templates = {
        name: named("x")
        for name in (
            "embedding",
            "final_norm",
            *(f"layers.*.{part}" for part in ("attention_norm", "mlp_norm", "mlp.up", "mlp.down")),
            *(f"layers.*.attention.{part}" for part in ("key", "value", "output")),
        )
    } | {"layers.*.attention.query": query, "positions.rope_factors": named("factors")}
    sources = expand_weight_map(SPEC, templates)
    assert sources.keys() == SPEC.parameter_shapes().keys()
    assert sources["embedding.weight"] == named("x.weight")
    assert sources["positions.rope_factors"] == named("factors")
    weight, bias = (sources[f"layers.1.attention.query.{suffix}"] for suffix in ("weight", "bias"))
    assert weight == TensorSource(("a.1.q.weight", "1.q.weight"), is_transposed=True, rows=query.rows)
    assert bias == TensorSource(("a.1.q.bias", "1.q.bias"), is_transposed=False, rows=query.rows)


def test_stored_shapes() -> None:
    assert named("x").stored_shape((4, 6)) == (4, 6)
    assert TensorSource(("x",), is_transposed=True).stored_shape((4, 6)) == (6, 4)
    fused = TensorSource(("x",), is_transposed=True, rows=RowRange(4, 8, 12))
    assert fused.stored_shape((4, 6)) == (6, 12)
    assert TensorSource(("x",), rows=RowRange(4, 8, 12)).stored_shape((4,)) == (12,)
