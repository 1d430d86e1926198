"""Rotary tables equal those of transformers, for each kind of scaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from octavo.compute.layers.rotary import build_rotary_tables
from octavo.model_spec import (
    LinearRopeScaling,
    Llama3RopeScaling,
    RopeFactorTensor,
    RopeScaling,
    RopeSpec,
)

HEAD_DIM = 64
MAX_POSITIONS = 5000
CPU = torch.device("cpu")


def transformers_tables(theta: float, settings: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    config = transformers.LlamaConfig(
        hidden_size=HEAD_DIM * 2,
        num_attention_heads=2,
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": theta, **settings},
    )
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(MAX_POSITIONS)[None])
    return cos[0, :, : HEAD_DIM // 2], sin[0, :, : HEAD_DIM // 2]


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("scaling", "settings"),
    [
        (None, {}),
        (LinearRopeScaling(factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            Llama3RopeScaling(
                factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
            ),
            LLAMA3,
        ),
    ],
)
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_tables_of_transformers(theta: float, scaling: RopeScaling | None, settings: dict[str, Any]) -> None:
    spec = RopeSpec(theta=theta, scaling=scaling)
    tables = build_rotary_tables(spec, HEAD_DIM, MAX_POSITIONS, factors=None, device=CPU)
    cos, sin = transformers_tables(theta, settings)
    # One unit in the last place of a frequency turns position 5000 by about 5000 * 6e-8.
    torch.testing.assert_close(tables.cos, cos, rtol=0.0, atol=5e-4)
    torch.testing.assert_close(tables.sin, sin, rtol=0.0, atol=5e-4)
    torch.testing.assert_close(tables.cos[:64], cos[:64], rtol=0.0, atol=1e-5)


def test_factor_tensor_divides_frequencies() -> None:
    factors = torch.linspace(1.0, 8.0, HEAD_DIM // 2)
    spec = RopeSpec(theta=10000.0, scaling=RopeFactorTensor())
    tables = build_rotary_tables(spec, HEAD_DIM, 16, factors=factors, device=CPU)
    plain = build_rotary_tables(RopeSpec(theta=10000.0), HEAD_DIM, 16, factors=None, device=CPU)
    angle = torch.atan2(tables.sin[1], tables.cos[1])
    plain_angle = torch.atan2(plain.sin[1], plain.cos[1])
    torch.testing.assert_close(angle * factors, plain_angle)


def test_missing_factor_tensor_is_refused() -> None:
    spec = RopeSpec(theta=10000.0, scaling=RopeFactorTensor())
    with pytest.raises(ValueError, match=r"positions\.rope_factors"):
        build_rotary_tables(spec, HEAD_DIM, 16, factors=None, device=CPU)
