"""Rounding to blocks: each value to the nearest step, and what cannot be held is left alone."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.rounding import ROUNDED_TYPES, round_matrix

_STEPS = {GgmlType.Q8_0: 127 * 2, GgmlType.Q4_1: 15}
by_type = pytest.mark.parametrize("ggml_type", ROUNDED_TYPES, ids=lambda ggml_type: ggml_type.name)


@by_type
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_value_is_off_by_half_a_step_at_most(ggml_type: GgmlType, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = (torch.randn(70, 96) * 10 ** torch.randn(70, 1)).to(dtype)
    rounded = round_matrix(values, ggml_type)
    assert rounded is not None and rounded.shape == (70, 96)
    blocks = values.float().view(-1, 32)
    if ggml_type is GgmlType.Q8_0:
        span = 2 * blocks.abs().amax(1, keepdim=True)
    else:
        span = blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)
    off = (rounded.dequantize().view(-1, 32) - blocks).abs()
    # float16 holds scales and minimums to 11 bits.
    assert bool((off <= span / _STEPS[ggml_type] * 0.51 + blocks.abs().amax(1, keepdim=True) * 2**-10).all())


@by_type
def test_it_is_no_worse_than_ggmls_own(ggml_type: GgmlType) -> None:
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[ggml_type.name]
    theirs = gguf.dequantize(gguf.quantize(values, kind), kind)
    ours = round_matrix(torch.from_numpy(values), ggml_type)
    assert ours is not None
    error = float((ours.dequantize() - torch.from_numpy(values)).norm())
    assert error <= 1.001 * float(np.linalg.norm(theirs - values))


@by_type
def test_many_rows_are_rounded_as_alone(ggml_type: GgmlType) -> None:
    values = torch.randn(9000, 128)  # more than one chunk
    whole, tail = round_matrix(values, ggml_type), round_matrix(values[8990:], ggml_type)
    assert whole is not None and tail is not None
    assert torch.equal(whole.rows[8990:], tail.rows)


@by_type
def test_zeros_and_equal_values_are_exact(ggml_type: GgmlType) -> None:
    values = torch.zeros(2, 64)
    values[1] = 0.5
    rounded = round_matrix(values, ggml_type)
    assert rounded is not None
    torch.testing.assert_close(rounded.dequantize(), values, rtol=1e-3, atol=0)


@by_type
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_what_scales_cannot_hold_is_not_rounded(ggml_type: GgmlType, bad: float) -> None:
    values = torch.randn(3, 64)
    values[2, 40] = bad
    assert round_matrix(values, ggml_type) is None


def test_part_blocks_and_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot round"):
        round_matrix(torch.randn(2, 48), GgmlType.Q8_0)
    with pytest.raises(ValueError, match="cannot round"):
        round_matrix(torch.randn(2, 64), GgmlType.Q4_0)
