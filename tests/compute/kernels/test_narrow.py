"""Products of float16 and bfloat16 weights: the bits of the same weights in float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.cpu.linear import NARROW_TYPES
from tests.compute.kernels.threads import num_threads

by_dtype = pytest.mark.parametrize("dtype", NARROW_TYPES, ids=str)


@by_dtype
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_tokens=st.integers(1, 23),
    in_size=st.integers(1, 600),
    out_size=st.integers(1, 50),
    has_bias=st.booleans(),
    adds=st.booleans(),
)
def test_the_bits_are_those_of_float32(
    native: KernelTable,
    dtype: torch.dtype,
    num_tokens: int,
    in_size: int,
    out_size: int,
    has_bias: bool,
    adds: bool,
) -> None:
    torch.manual_seed(num_tokens)
    x = torch.randn(num_tokens, 2 * in_size)[:, :in_size]
    weight, bias = torch.randn(out_size, in_size).to(dtype), torch.randn(out_size) if has_bias else None
    before = torch.randn(num_tokens, out_size)
    found = native.linear(x, native.pack_weight([weight]), bias, before.clone() if adds else None)
    wide = native.pack_weight([weight.float()])
    assert torch.equal(found, native.linear(x, wide, bias, before.clone() if adds else None))


@by_dtype
def test_every_number_is_widened_exactly(native: KernelTable, dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).view(256, 256)
    packed = native.pack_weight([every])
    assert packed.parts[0].data.dtype is dtype
    rows = native.weight_rows(packed, torch.arange(256))
    torch.testing.assert_close(rows, every.float(), rtol=0, atol=0, equal_nan=True)
    finite = torch.where(every.isfinite(), every, torch.zeros_like(every))
    packed = native.pack_weight([finite])
    for num_tokens in (1, 8):
        x = torch.eye(256)[:num_tokens]
        assert torch.equal(native.linear(x, packed), finite.float().T[:num_tokens])


@by_dtype
def test_a_row_alone_or_in_any_batch(native: KernelTable, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    weight, x = native.pack_weight([torch.randn(1000, 576).to(dtype)]), torch.randn(200, 576)
    with num_threads(2):
        together = native.linear(x, weight)
        for count in [*range(1, 14), 31, 193, 199]:
            assert torch.equal(native.linear(x[:count], weight), together[:count])
            assert torch.equal(native.linear(x[-count:], weight), together[-count:])
    with num_threads(1):
        assert torch.equal(native.linear(x, weight), together)
