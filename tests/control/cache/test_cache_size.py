"""Arithmetic of the pool, on SmolLM2-135M's shape."""

import pytest

from octavo.control.cache.cache_size import (
    block_bytes,
    blocks_for_tokens,
    num_blocks_within,
    slots_for_request,
)
from octavo.errors import ConfigError
from octavo.model_spec import (
    Activation,
    AttentionSpec,
    DecoderSpec,
    MlpSpec,
    NormKind,
    NormSpec,
    RopeSpec,
)

SMOLLM2_135M = DecoderSpec(
    vocab_size=49152,
    hidden_size=576,
    num_layers=30,
    max_positions=8192,
    norm=NormSpec(kind=NormKind.RMS, eps=1e-5),
    positions=RopeSpec(theta=100000.0),
    attention=AttentionSpec(
        num_heads=9, num_kv_heads=3, head_dim=64, scale=0.125, window_by_layer=(None,) * 30
    ),
    mlp=MlpSpec(intermediate_size=1536, activation=Activation.SILU, is_gated=True),
    is_head_tied=True,
)


def test_a_block_holds_keys_and_values_of_all_layers():
    assert block_bytes(SMOLLM2_135M, 16, 4) == 16 * 2 * 30 * 3 * 64 * 4
    assert block_bytes(SMOLLM2_135M, 16, 2) * 2 == block_bytes(SMOLLM2_135M, 16, 4)


def test_blocks_within_a_budget():
    per_block = block_bytes(SMOLLM2_135M, 16, 4)
    assert num_blocks_within(512 * 2**20, per_block) == 728
    assert num_blocks_within(per_block, per_block) == 1
    with pytest.raises(ConfigError, match=f"cannot hold one block of {per_block} bytes"):
        num_blocks_within(per_block - 1, per_block)


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_blocks_for_tokens(num_tokens, num_blocks):
    assert blocks_for_tokens(num_tokens, 16) == num_blocks


def test_the_last_sampled_token_needs_no_slot():
    assert slots_for_request(10, 6) == 15
    assert slots_for_request(10, 1) == slots_for_request(10, 0) == 10
