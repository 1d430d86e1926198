"""Every operation, on every implementation that runs here, against the reference; and the reference
against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.cpu.tensors import KV_DTYPES
from octavo.compute.kernels.kv_rows import row_size
from octavo.model_spec import Activation
from tests.compute.kernels.attention_case import AttentionShape, PagedSequences, attend_plainly

SHAPES = [
    AttentionShape(num_heads=9, num_kv_heads=3, head_dim=64),
    AttentionShape(num_heads=4, num_kv_heads=4, head_dim=16),
    AttentionShape(num_heads=8, num_kv_heads=1, head_dim=80, block_size=5),
    AttentionShape(num_heads=14, num_kv_heads=2, head_dim=128, block_size=1),
    AttentionShape(num_heads=2, num_kv_heads=1, head_dim=256, block_size=32),
    AttentionShape(num_heads=4, num_kv_heads=2, head_dim=40, block_size=256),
    AttentionShape(num_heads=6, num_kv_heads=2, head_dim=20),  # no whole number of vectors
]
SLOW_FIXTURES = [HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [None, 1, 7, 40])
def test_reference_attention_is_the_definition(
    reference_kernels: KernelTable, shape: AttentionShape, window: int | None
) -> None:
    case = PagedSequences(shape, [41, 1, 18])
    slices = [(0, 0, 41), (1, 0, 1), (2, 17, 18)]
    outputs = case.attend(reference_kernels.paged_attention, slices, window=window)
    for (sequence, start, end), out in zip(slices, outputs, strict=True):
        expected = attend_plainly(case, sequence, window)[start:end]
        torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [None, 1, 33, 300])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES, ids=str)
def test_attention_of_prefill_decode_and_chunks_in_one_batch(
    native: KernelTable,
    reference_kernels: KernelTable,
    shape: AttentionShape,
    window: int | None,
    kv_dtype: torch.dtype,
) -> None:
    # On both sides of the kernel's borders: chunks of 32 tokens, pieces of 256.
    lengths = [1, 600, 33, 300, 17, 513]
    case = PagedSequences(shape, lengths, kv_dtype=kv_dtype)
    slices = [(0, 0, 1), (1, 599, 600), (2, 0, 33), (3, 250, 300), (4, 3, 17), (5, 512, 513), (3, 0, 1)]
    found = case.attend(native.paged_attention, slices, window=window)
    expected = case.attend(reference_kernels.paged_attention, slices, window=window)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


@settings(max_examples=20, deadline=None, suppress_health_check=SLOW_FIXTURES)
@given(data=st.data())
def test_attention_of_any_shape(
    native: KernelTable, reference_kernels: KernelTable, data: st.DataObject
) -> None:
    num_kv_heads = data.draw(st.integers(1, 4))
    shape = AttentionShape(
        num_heads=num_kv_heads * data.draw(st.integers(1, 9)),
        num_kv_heads=num_kv_heads,
        head_dim=8 * data.draw(st.integers(2, 16)),
        block_size=data.draw(st.integers(1, 40)),
    )
    lengths = data.draw(st.lists(st.integers(1, 290), min_size=1, max_size=5))
    kv_dtype = data.draw(st.sampled_from(KV_DTYPES))
    case = PagedSequences(shape, lengths, seed=data.draw(st.integers(0, 99)), kv_dtype=kv_dtype)
    slices = [(s, data.draw(st.integers(0, length - 1)), length) for s, length in enumerate(lengths)]
    window = data.draw(st.none() | st.integers(1, 300))
    soft_cap = data.draw(st.none() | st.floats(0.3, 50))
    found = case.attend(native.paged_attention, slices, window=window, soft_cap=soft_cap)
    expected = case.attend(reference_kernels.paged_attention, slices, window=window, soft_cap=soft_cap)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


def test_capped_scores_are_the_definition(native: KernelTable, reference_kernels: KernelTable) -> None:
    case = PagedSequences(AttentionShape(6, 2, 16), [70])
    expected = attend_plainly(case, 0, window=50, soft_cap=0.4)
    for table in (native, reference_kernels):
        (out,) = case.attend(table.paged_attention, [(0, 0, 70)], window=50, soft_cap=0.4)
        torch.testing.assert_close(out.double(), expected, atol=5e-6, rtol=1e-5)


def test_attention_far_from_zero_neither_overflows_nor_hides_nan(native: KernelTable) -> None:
    case = PagedSequences(AttentionShape(2, 1, 16), [70])
    case.queries[0] *= 1e4
    (out,) = case.attend(native.paged_attention, [(0, 0, 70)])
    assert torch.isfinite(out).all()
    case.queries[0][3] = float("nan")
    (out,) = case.attend(native.paged_attention, [(0, 0, 70)])
    assert torch.isnan(out[3]).all()
    assert torch.isfinite(out[4:]).all()


def test_attention_takes_strided_queries_and_refuses_what_it_cannot_read(native: KernelTable) -> None:
    case = PagedSequences(AttentionShape(4, 2, 16), [20])
    (expected,) = case.attend(native.paged_attention, [(0, 0, 20)])
    fused = torch.randn(20, 8, 16)
    fused[:, 2:6] = case.queries[0]
    case.queries[0] = fused[:, 2:6]
    (out,) = case.attend(native.paged_attention, [(0, 0, 20)])
    assert torch.equal(out, expected)
    case.block_ids[0][1] = 10**6
    with pytest.raises(IndexError, match="sequence 0"):
        case.attend(native.paged_attention, [(0, 0, 20)])
    case.queries[0] = case.queries[0].double()
    with pytest.raises(ValueError, match="query must be a float32"):
        case.attend(native.paged_attention, [(0, 0, 16)])


@pytest.mark.parametrize("num_tokens", [1, 3, 300])
@pytest.mark.parametrize("size", [576, 20, 7])
@pytest.mark.parametrize("has_weight", [True, False])
def test_rms_norm(
    native: KernelTable, reference_kernels: KernelTable, num_tokens: int, size: int, has_weight: bool
) -> None:
    weight = torch.randn(size) if has_weight else None
    for x in (torch.randn(num_tokens, size) * 3, torch.randn(num_tokens, 8, 2 * size)[:, 2:5, size:]):
        expected = reference_kernels.rms_norm(x, weight, 1e-5)
        torch.testing.assert_close(native.rms_norm(x, weight, 1e-5), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", list(Activation))
def test_gated_activation(
    native: KernelTable, reference_kernels: KernelTable, activation: Activation
) -> None:
    for num_tokens, size in [(1, 1536), (200, 1024), (5, 13)]:
        fused = torch.randn(num_tokens, 2 * size) * 20
        gate, up = fused[:, :size], fused[:, size:]
        expected = reference_kernels.gated_activation(gate, up, activation)
        torch.testing.assert_close(native.gated_activation(gate, up, activation), expected)


def test_silu_at_the_ends_of_its_range(native: KernelTable) -> None:
    gate = torch.tensor([[-1e30, -100.0, -88.0, -0.0, 0.0, 88.0, 1e30, float("nan")]])
    out = native.gated_activation(gate, torch.ones_like(gate), Activation.SILU)
    torch.testing.assert_close(out[0, 2:7], torch.nn.functional.silu(gate)[0, 2:7])
    assert torch.isnan(out[0, 7])
    assert out[0, 1].abs() < 1e-30
    torch.testing.assert_close(out[0, 0].item(), 0.0, atol=1e-7, rtol=0)


@pytest.mark.parametrize("head_dim", [64, 80, 20])
@pytest.mark.parametrize("num_tokens", [1, 200])
def test_rotate(native: KernelTable, reference_kernels: KernelTable, head_dim: int, num_tokens: int) -> None:
    cos, sin = torch.randn(400, head_dim // 2), torch.randn(400, head_dim // 2)
    positions = torch.randint(0, 400, (num_tokens,))
    fused = torch.randn(num_tokens, 15, head_dim)
    expected = fused.clone()
    reference_kernels.rotate(expected[:, :9], expected[:, 9:12], cos, sin, positions)
    native.rotate(fused[:, :9], fused[:, 9:12], cos, sin, positions)
    torch.testing.assert_close(fused, expected)
    positions[-1] = 400
    with pytest.raises(IndexError, match="position outside 0 to 399"):
        native.rotate(fused[:, :9], fused[:, 9:12], cos, sin, positions)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES, ids=str)
def test_write_and_copy_blocks(
    native: KernelTable, reference_kernels: KernelTable, kv_dtype: torch.dtype
) -> None:
    fused = torch.randn(30, 15, 21) * 10 ** torch.randint(-8, 6, (30, 15, 21))  # beyond float16 at both ends
    fused[0, 13, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 65520.0])
    key, value = fused[:, 9:12], fused[:, 12:]
    slots = torch.randperm(6 * 7)[:30]
    results = []
    for table in (native, reference_kernels):
        layers = [
            tuple(torch.zeros(6, 3, 7, row_size(kv_dtype, 21), dtype=kv_dtype) for _ in range(2))
            for _ in range(2)
        ]
        table.write_kv(key, value, *layers[0], slots)
        table.write_kv(value, key, *layers[1], slots)
        table.copy_blocks(layers, [0, 2, 3, 1], [2, 3, 5, 1])  # block 2 is a target, then a source
        table.copy_blocks(layers, [], [])
        results.append(layers)
    for (key_a, value_a), (key_b, value_b) in zip(*results, strict=True):
        torch.testing.assert_close(key_a, key_b, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(value_a, value_b, rtol=0, atol=0, equal_nan=True)
    key_blocks = results[0][0][0]
    assert key_blocks.count_nonzero() > 0
    torch.testing.assert_close(key_blocks[5], key_blocks[0], rtol=0, atol=0, equal_nan=True)
    with pytest.raises(IndexError, match="token 29"):
        native.write_kv(key, value, *results[0][0], torch.arange(30) + 13)
    with pytest.raises(IndexError, match="outside 0 to 5"):
        native.copy_blocks(results[0], [0], [6])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_attention_on_a_gpu(reference_kernels: KernelTable, shape: AttentionShape) -> None:
    case = PagedSequences(shape, [41, 1, 18])
    slices = [(0, 0, 41), (1, 0, 1), (2, 17, 18)]
    on_cpu = case.attend(reference_kernels.paged_attention, slices, window=20)
    on_gpu = case.attend(reference_kernels.paged_attention, slices, window=20, device="cuda")
    for one, other in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW_FIXTURES)
@given(
    num_tokens=st.integers(1, 33),
    in_size=st.integers(1, 200),
    out_size=st.integers(1, 130),
    has_bias=st.booleans(),
    is_strided=st.booleans(),
)
def test_linear_of_any_shape(
    native: KernelTable,
    reference_kernels: KernelTable,
    num_tokens: int,
    in_size: int,
    out_size: int,
    has_bias: bool,
    is_strided: bool,
) -> None:
    torch.manual_seed(num_tokens)
    x = torch.randn(num_tokens, 2 * in_size)[:, :in_size] if is_strided else torch.randn(num_tokens, in_size)
    weight, bias = torch.randn(out_size, in_size), torch.randn(out_size) if has_bias else None
    found = native.linear(x, native.pack_weight([weight]), bias)
    expected = reference_kernels.linear(x, reference_kernels.pack_weight([weight]), bias)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_rows_of_a_packed_weight(native: KernelTable) -> None:
    weight = torch.randn(37, 24)
    row_ids = torch.tensor([36, 0, 16, 15, 16])
    assert torch.equal(native.weight_rows(native.pack_weight([weight]), row_ids), weight[row_ids])


def test_linear_refuses_what_it_would_read_past(native: KernelTable) -> None:
    packed = native.pack_weight([torch.randn(32, 24)])
    with pytest.raises(ValueError, match="25 columns"):
        native.linear(torch.randn(2, 25), packed)
    with pytest.raises(ValueError, match="float32"):
        native.linear(torch.randn(2, 24).double(), packed)
    with pytest.raises(ValueError, match="bias"):
        native.linear(torch.randn(2, 24), packed, torch.randn(31))
