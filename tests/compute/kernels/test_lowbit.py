"""Products of low-bit weights: every format, on every instruction set, against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels import KernelTable, reference
from octavo.compute.kernels.cpu.linear import LOW_BIT_TYPES
from octavo.compute.kernels.reference.linear import FOUR_BIT_TYPES
from octavo.compute.quantization.matrix import QuantizedMatrix, stack_rows
from tests.compute.kernels.lowbit_case import exact_product, random_matrix, with_scale
from tests.compute.kernels.threads import num_threads

TYPES = sorted(LOW_BIT_TYPES, key=lambda ggml_type: ggml_type.name)
by_type = pytest.mark.parametrize("ggml_type", TYPES, ids=lambda ggml_type: ggml_type.name)


@by_type
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_product_is_that_of_rounded_activations(
    native: KernelTable, ggml_type: GgmlType, data: st.DataObject
) -> None:
    num_tokens, out_size = data.draw(st.integers(1, 22)), data.draw(st.integers(1, 70))
    in_size = ggml_type.block_size * data.draw(st.integers(1, 50 * 32 // ggml_type.block_size))
    seed = data.draw(st.integers(0, 99))
    matrix = random_matrix(ggml_type, out_size, in_size, seed)
    generator = torch.Generator().manual_seed(seed)
    fused = torch.randn(num_tokens, 2 * in_size, generator=generator)
    x = fused[:, :in_size] if data.draw(st.booleans()) else fused[:, in_size:].contiguous()
    bias = torch.randn(out_size, generator=generator) if data.draw(st.booleans()) else None
    add_to = torch.randn(num_tokens, out_size, generator=generator) if data.draw(st.booleans()) else None
    expected = exact_product(reference.quantize_activations(x, ggml_type), matrix)
    expected = expected + (0 if bias is None else bias) + (0 if add_to is None else add_to)
    found = native.linear(x, native.pack_weight([matrix]), bias, add_to)
    assert add_to is None or found is add_to
    bound = 1e-5 * float(expected.abs().max()) + 1e-6
    torch.testing.assert_close(found.double(), expected, atol=bound, rtol=0)


@by_type
def test_rounding_of_activations_is_the_only_loss(native: KernelTable, ggml_type: GgmlType) -> None:
    matrix, x = random_matrix(ggml_type, 300, 512), torch.randn(20, 512)
    exact = exact_product(x, matrix)
    lost = native.linear(x, native.pack_weight([matrix])).double() - exact
    assert float(lost.norm() / exact.norm()) < (0.01 if ggml_type in FOUR_BIT_TYPES else 0.0004)


@by_type
@pytest.mark.parametrize("level", [0, 255, 0x80, 0x7F])
def test_extreme_weights_and_activations_do_not_overflow(
    native: KernelTable, ggml_type: GgmlType, level: int
) -> None:
    matrix = random_matrix(ggml_type, 40, 512)
    blocks = torch.full_like(matrix.rows, level).view(-1, ggml_type.block_bytes)
    if ggml_type in (GgmlType.Q4_K, GgmlType.Q5_K):
        blocks[:, 4:16] = 0x11  # their small scales, of which products are formed
    extreme = with_scale(QuantizedMatrix(blocks.view(matrix.rows.shape), ggml_type), 1.0)
    packed = native.pack_weight([extreme])
    for x in (torch.ones(6, 512), -torch.ones(6, 512), torch.ones(6, 512) * torch.tensor([1.0, -1.0] * 256)):
        expected = exact_product(x, extreme)
        torch.testing.assert_close(native.linear(x, packed).double(), expected, atol=1e-3, rtol=1e-6)


@by_type
@pytest.mark.parametrize("out_size", [960, 1000])
def test_a_row_alone_or_in_any_batch(native: KernelTable, ggml_type: GgmlType, out_size: int) -> None:
    in_size = 768
    torch.manual_seed(1)
    weight, x = native.pack_weight([random_matrix(ggml_type, out_size, in_size)]), torch.randn(64, in_size)
    with num_threads(2):
        together = native.linear(x, weight)
        for num_tokens in [*range(1, 20), 31, 32, 33, 63]:
            assert torch.equal(native.linear(x[:num_tokens], weight), together[:num_tokens])
            assert torch.equal(native.linear(x[-num_tokens:], weight), together[-num_tokens:])
    with num_threads(1):
        assert torch.equal(native.linear(x, weight), together)


def test_more_tokens_than_are_summed_at_once(native: KernelTable) -> None:
    weight, x = native.pack_weight([random_matrix(GgmlType.Q4_1, 48, 1536)]), torch.randn(1030, 1536)
    together = native.linear(x, weight)
    for token in (0, 511, 512, 1029):
        assert torch.equal(native.linear(x[token : token + 1], weight), together[token : token + 1])


@by_type
def test_rows_are_read_back_exactly(native: KernelTable, ggml_type: GgmlType) -> None:
    matrix = random_matrix(ggml_type, 37, 512)
    row_ids = torch.tensor([36, 0, 16, 15, 16])
    packed = native.pack_weight([matrix])
    assert packed.parts[0].ggml_type is ggml_type
    assert torch.equal(native.weight_rows(packed, row_ids), matrix.dequantize()[row_ids])
    with pytest.raises(IndexError, match="row id 1 "):
        native.weight_rows(packed, torch.tensor([36, 37]))


def test_a_stack_of_several_formats(native: KernelTable) -> None:
    matrices = [
        random_matrix(GgmlType.Q4_1, 20, 64, seed=1),
        random_matrix(GgmlType.Q4_1, 12, 64, seed=2),
        random_matrix(GgmlType.Q8_0, 33, 64, seed=3),
        torch.randn(7, 64) * 0.01,
    ]
    stacked = stack_rows(matrices)
    assert [matrix.shape[0] for matrix in stacked] == [32, 33, 7]
    weight, x, bias = native.pack_weight(stacked), torch.randn(5, 64), torch.randn(72)
    plain = [m if isinstance(m, torch.Tensor) else m.dequantize() for m in matrices]
    coarse, fine = (reference.quantize_activations(x, one) for one in (GgmlType.Q4_1, GgmlType.Q8_0))
    products = [coarse @ torch.cat(plain[:2]).T, fine @ plain[2].T, x @ plain[3].T]
    expected = torch.cat(products, dim=1) + bias
    torch.testing.assert_close(native.linear(x, weight, bias), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_in_its_row_and_shows(native: KernelTable, bad: float) -> None:
    weight, x = native.pack_weight([random_matrix(GgmlType.Q4_1, 32, 96)]), torch.randn(9, 96)
    expected = native.linear(x, weight)
    x[4, 50] = bad
    found = native.linear(x, weight)
    assert not torch.isfinite(found[4]).any()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[others], expected[others])


def test_zeros_and_tiny_numbers(native: KernelTable) -> None:
    matrix = random_matrix(GgmlType.Q4_1, 32, 64)
    weight = native.pack_weight([matrix])
    assert torch.equal(native.linear(torch.zeros(2, 64), weight), torch.zeros(2, 32))
    assert torch.isfinite(native.linear(torch.full((2, 64), 1e-42), weight)).all()
    small = torch.randn(2, 64) * 1e-30
    expected = exact_product(reference.quantize_activations(small, GgmlType.Q4_1), matrix)
    torch.testing.assert_close(native.linear(small, weight).double(), expected, atol=1e-36, rtol=1e-4)


def test_scales_that_panels_cannot_hold_are_unpacked(native: KernelTable) -> None:
    matrix = with_scale(
        random_matrix(GgmlType.Q4_0, 16, 32), 60000.0
    )  # its minimum, -8 times that, overflows
    packed = native.pack_weight([matrix])
    assert packed.parts[0].ggml_type is None
    x = torch.randn(3, 32)
    torch.testing.assert_close(
        native.linear(x, packed).double(), exact_product(x, matrix), rtol=1e-5, atol=1.0
    )
