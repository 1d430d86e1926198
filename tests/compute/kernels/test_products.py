"""What is done to a product's input on its way in, and the head's choice without logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels import KernelTable, reference
from octavo.compute.kernels.signatures import Before, Gated, LinearWeight, RmsNormed
from octavo.model_spec import Activation
from tests.compute.kernels.lowbit_case import random_matrix
from tests.compute.kernels.threads import num_threads

IN_SIZE, OUT_SIZE = 192, 600
FORMATS = ("float32", "bfloat16", "Q4_1", "Q8_0")
by_format = pytest.mark.parametrize("name", FORMATS)
BEFORES: tuple[Before, ...] = (
    RmsNormed(torch.linspace(0.5, 1.5, IN_SIZE), 1e-5),
    RmsNormed(None, 1e-6),
    Gated(Activation.SILU),
    Gated(Activation.GELU_TANH),
)
by_before = pytest.mark.parametrize("before", BEFORES, ids=lambda before: type(before).__name__)


def _weight(kernels: KernelTable, name: str, out_size: int = OUT_SIZE) -> LinearWeight:
    torch.manual_seed(5)
    if name in GgmlType.__members__:
        return kernels.pack_weight([random_matrix(GgmlType[name], out_size, IN_SIZE)])
    return kernels.pack_weight([torch.randn(out_size, IN_SIZE).to(getattr(torch, name))])


def _inputs(before: Before | None, num_tokens: int = 33) -> Tensor:
    width = IN_SIZE * (2 if isinstance(before, Gated) else 1)
    return torch.randn(num_tokens, width, generator=torch.Generator().manual_seed(6))


@by_format
@by_before
def test_the_way_in_is_what_its_own_kernel_does(native: KernelTable, name: str, before: Before) -> None:
    weight, x = _weight(native, name), _inputs(before)
    match before:
        case RmsNormed():
            prepared = native.rms_norm(x, before.weight, before.eps)
        case Gated():
            prepared = native.gated_activation(x[:, :IN_SIZE], x[:, IN_SIZE:], before.activation)
    found, expected = native.linear(x, weight, before=before), native.linear(prepared, weight)
    torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


@by_before
def test_against_the_reference(native: KernelTable, reference_kernels: KernelTable, before: Before) -> None:
    x, bias, add_to = _inputs(before), torch.randn(OUT_SIZE), torch.randn(33, OUT_SIZE)
    found = native.linear(x, _weight(native, "float32"), bias, add_to.clone(), before)
    expected = reference.linear(x, _weight(reference_kernels, "float32"), bias, add_to.clone(), before)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@by_format
@by_before
def test_a_row_alone_or_in_any_batch(native: KernelTable, name: str, before: Before) -> None:
    weight, x = _weight(native, name), _inputs(before, 70)
    with num_threads(2):
        together = native.linear(x, weight, before=before)
        for num_tokens in (1, 2, 3, 4, 5, 6, 31, 64):
            assert torch.equal(native.linear(x[-num_tokens:], weight, before=before), together[-num_tokens:])
    with num_threads(1):
        assert torch.equal(native.linear(x, weight, before=before), together)


@by_format
@pytest.mark.parametrize("out_size", [1, 255, 256, 257, 5000])
def test_the_largest_is_that_of_the_logits(native: KernelTable, name: str, out_size: int) -> None:
    before, bias = BEFORES[0], torch.randn(out_size)
    weight, x = _weight(native, name, out_size), _inputs(before)
    logits = native.linear(x, weight, bias, before=before)
    for threads in (1, 2):
        with num_threads(threads):
            places, maxima = native.choose_greedy(x, weight, bias, before)
        assert torch.equal(maxima, logits.amax(dim=1))
        assert torch.equal(logits.gather(1, places[:, None])[:, 0], maxima)


def test_the_first_of_equals_and_rows_that_are_not_finite(
    native: KernelTable, reference_kernels: KernelTable
) -> None:
    matrix = torch.zeros(5000, 2)
    matrix[[700, 701, 4000], 0] = 1.0
    matrix[[300, 4999], 1] = -2.0
    x = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0], [torch.nan, 0.0], [torch.inf, 1.0]])
    for kernels in (native, reference_kernels):
        places, maxima = kernels.choose_greedy(x, kernels.pack_weight([matrix]))
        assert places[:3].tolist() == [700, 300, 0]
        assert maxima[:3].tolist() == [1.0, 2.0, 0.0]
        assert maxima[3:].isnan().all()


def test_one_matrix_only(native: KernelTable) -> None:
    weight = native.pack_weight([random_matrix(GgmlType.Q4_1, 32, 64), torch.randn(32, 64)])
    with pytest.raises(ValueError, match="one matrix"):
        native.choose_greedy(torch.randn(2, 64), weight)
