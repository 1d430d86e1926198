"""A row's attention is bitwise the same alone, in a batch, chunked, on any number of threads, in any
blocks: what makes a request's output independent of who else is served."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.cpu.tensors import KV_DTYPES
from octavo.model_spec import Activation
from tests.compute.kernels.attention_case import AttentionShape, PagedSequences
from tests.compute.kernels.threads import num_threads

SMOLLM = AttentionShape(num_heads=9, num_kv_heads=3, head_dim=64)


@pytest.fixture(scope="module", params=KV_DTYPES, ids=str)
def long_case(request: pytest.FixtureRequest) -> PagedSequences:
    lengths = [700, *[(37 * i) % 290 + 1 for i in range(63)]]
    return PagedSequences(SMOLLM, lengths, kv_dtype=request.param)


@pytest.mark.parametrize("window", [None, 100])
def test_a_row_alone_or_in_a_batch_of_64(
    native: KernelTable, long_case: PagedSequences, window: int | None
) -> None:
    last_rows = [(s, length - 1, length) for s, length in enumerate(long_case.context_lengths)]
    with num_threads(2):
        together = long_case.attend(native.paged_attention, last_rows, window=window)
        # Alone, the 700-token row is cut into pieces for both threads; in the batch it is not.
        for piece, expected in zip(last_rows, together, strict=True):
            (alone,) = long_case.attend(native.paged_attention, [piece], window=window)
            assert torch.equal(alone, expected)
    with num_threads(1):
        on_one_thread = long_case.attend(native.paged_attention, last_rows, window=window)
    assert all(torch.equal(a, b) for a, b in zip(together, on_one_thread, strict=True))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_prompt_whole_or_in_any_chunks(native: KernelTable, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([SMOLLM, AttentionShape(5, 1, 40), AttentionShape(2, 2, 128)]))
    length = data.draw(st.integers(2, 600))
    window = data.draw(st.none() | st.integers(1, 400))
    kv_dtype = data.draw(st.sampled_from(KV_DTYPES))
    case = PagedSequences(shape, [length, 45], seed=data.draw(st.integers(0, 99)), kv_dtype=kv_dtype)
    (whole,) = case.attend(native.paged_attention, [(0, 0, length)], window=window)
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4)))
    borders = [0, *cuts, length]
    chunks: list[Tensor] = []
    for start, end in pairwise(borders):
        with num_threads(data.draw(st.integers(1, 3))):
            chunk, _ = case.attend(native.paged_attention, [(0, start, end), (1, 44, 45)], window=window)
        chunks.append(chunk)
    assert torch.equal(torch.cat(chunks), whole)


def test_any_block_size(native: KernelTable) -> None:
    outputs = []
    for block_size in (1, 7, 16, 64):
        shape = AttentionShape(9, 3, 64, block_size=block_size)
        case = PagedSequences(shape, [333])
        # The same tokens in other blocks: the generator's draws do not depend on the block size.
        torch.manual_seed(5)
        keys, values, queries = torch.randn(333, 3, 64), torch.randn(333, 3, 64), torch.randn(333, 9, 64)
        ids = torch.tensor(case.block_ids[0])
        slots = (ids[:, None] * block_size + torch.arange(block_size)).flatten()[:333]
        native.write_kv(keys, values, case.key_blocks, case.value_blocks, slots)
        case.queries[0] = queries
        outputs += case.attend(native.paged_attention, [(0, 0, 333)])
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


def test_rows_of_the_small_kernels(native: KernelTable) -> None:
    x, weight = torch.randn(300, 576), torch.randn(576)
    gate, up = torch.randn(300, 1536), torch.randn(300, 1536)
    for row in (0, 123, 299):
        one = slice(row, row + 1)
        assert torch.equal(native.rms_norm(x, weight, 1e-5)[one], native.rms_norm(x[one], weight, 1e-5))
        together = native.gated_activation(gate, up, Activation.SILU)[one]
        assert torch.equal(together, native.gated_activation(gate[one], up[one], Activation.SILU))


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("size", [100, 3072, 4113])
def test_rows_of_activations_wherever_the_threads_cut(
    native: KernelTable, activation: Activation, size: int
) -> None:
    """Of widths and numbers of threads that leave remains beside whole vectors."""
    torch.manual_seed(2)
    x, up = 3 * torch.randn(64, size), torch.randn(64, size)
    with num_threads(7):
        together, gated = native.activate(x, activation), native.gated_activation(x, up, activation)
    for first in range(0, 60, 3):
        for rows in (slice(first, first + 1), slice(first, first + 4)):
            with num_threads(3):
                assert torch.equal(native.activate(x[rows], activation), together[rows])
                assert torch.equal(native.gated_activation(x[rows], up[rows], activation), gated[rows])


def test_rows_of_layer_norm(native: KernelTable) -> None:
    torch.manual_seed(3)
    for size in (100, 768, 1021):
        x, weight, bias = torch.randn(64, size), torch.randn(size), torch.randn(size)
        with num_threads(3):
            together = native.layer_norm(x, weight, bias, 1e-5)
            for rows in (slice(0, 1), slice(5, 8), slice(10, 27), slice(63, 64)):
                assert torch.equal(native.layer_norm(x[rows], weight, bias, 1e-5), together[rows])


def test_calls_from_several_threads_at_once(native: KernelTable, long_case: PagedSequences) -> None:
    slices = [(s, length - 1, length) for s, length in enumerate(long_case.context_lengths)]
    with num_threads(2):
        expected = torch.cat(long_case.attend(native.paged_attention, slices))
        wrong: list[int] = []

        def call_repeatedly(caller: int) -> None:
            for _ in range(20):
                if not torch.equal(torch.cat(long_case.attend(native.paged_attention, slices)), expected):
                    wrong.append(caller)

        callers = [threading.Thread(target=call_repeatedly, args=(i,)) for i in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []


def test_idle_threads_use_no_cpu(native: KernelTable, long_case: PagedSequences) -> None:
    slices = [(s, length - 1, length) for s, length in enumerate(long_case.context_lengths)]
    with num_threads(2):
        long_case.attend(native.paged_attention, slices)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("out_size", [960, 1000])
def test_a_product_alone_or_in_any_batch(native: KernelTable, out_size: int) -> None:
    torch.manual_seed(1)
    weight, x = native.pack_weight([torch.randn(out_size, 576)]), torch.randn(64, 576)
    with num_threads(2):
        together = native.linear(x, weight)
        for num_tokens in [*range(1, 20), 31, 32, 33, 63]:
            assert torch.equal(native.linear(x[:num_tokens], weight), together[:num_tokens])
            assert torch.equal(native.linear(x[-num_tokens:], weight), together[-num_tokens:])
    with num_threads(1):
        assert torch.equal(native.linear(x, weight), together)
