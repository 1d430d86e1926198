"""Random shapes, formats and strides of every kernel, each held against the reference: one seed, one round.

python -m tests.compute.kernels.fuzz [ROUNDS [SEED]]
"""

from __future__ import annotations

import random
import sys
import time

import torch

from octavo.compute import kernels
from octavo.compute.kernels import KernelTable, reference
from octavo.compute.kernels.cpu.library import ISAS, NativeLibraryError, load_library
from octavo.compute.kernels.cpu.linear import LOW_BIT_TYPES, NARROW_TYPES
from octavo.compute.kernels.cpu.tensors import KV_DTYPES
from octavo.compute.kernels.kv_rows import row_size
from octavo.compute.quantization.matrix import StoredWeight
from octavo.model_spec import Activation
from tests.compute.kernels.attention_case import AttentionShape, PagedSequences
from tests.compute.kernels.lowbit_case import exact_product, random_matrix
from tests.compute.kernels.threads import num_threads

_TYPES = sorted(LOW_BIT_TYPES, key=lambda ggml_type: ggml_type.name)
_REFERENCE = kernels.reference_table("the yardstick")


def run_round(table: KernelTable, seed: int) -> None:
    """Every kernel once, with shapes drawn from `seed`.

    Raises:
        AssertionError: one differs from the reference, or a row from itself alone; its note has the seed.
    """
    draw = random.Random(seed)
    torch.manual_seed(seed)
    for check in (_check_low_bit, _check_plain, _check_attention, _check_rows, _check_cache):
        try:
            check(table, draw)
        except AssertionError as error:
            error.add_note(f"{check.__name__} on {table.name}, seed {seed}")
            raise


def _rows(draw: random.Random, num_rows: int, size: int) -> torch.Tensor:
    """Numbers of some scale, with rows that may lie apart."""
    before, after = draw.choice([(0, 0), (0, size), (3, 5), (16, 0)])
    x = torch.randn(num_rows, before + size + after)[:, before : before + size]
    return x * 10 ** draw.uniform(-3, 3)


def _check_product(
    table: KernelTable, draw: random.Random, weight: StoredWeight, x: torch.Tensor, expected: torch.Tensor
) -> None:
    out_size = weight.shape[0]
    bias = torch.randn(out_size) if draw.random() < 0.5 else None
    before = torch.randn(len(x), out_size) if draw.random() < 0.5 else None
    packed = table.pack_weight([weight])
    found = table.linear(x, packed, bias, None if before is None else before.clone())
    expected = expected + (0 if bias is None else bias) + (0 if before is None else before)
    torch.testing.assert_close(
        found.double(), expected, atol=3e-5 * float(expected.abs().max()) + 1e-6, rtol=0
    )
    row = draw.randrange(len(x))
    alone = table.linear(
        x[row : row + 1], packed, bias, None if before is None else before[row : row + 1].clone()
    )
    assert torch.equal(alone[0], found[row])


def _check_low_bit(table: KernelTable, draw: random.Random) -> None:
    ggml_type = draw.choice(_TYPES)
    in_size = ggml_type.block_size * draw.randint(1, max(1, 1600 // ggml_type.block_size))
    matrix = random_matrix(ggml_type, draw.randint(1, 100), in_size, draw.randrange(1000))
    x = _rows(draw, draw.choice([1, 2, 3, 4, 5, 7, 8, 33, 64]), in_size)
    expected = exact_product(reference.quantize_activations(x, ggml_type), matrix)
    _check_product(table, draw, matrix, x, expected)


def _check_plain(table: KernelTable, draw: random.Random) -> None:
    in_size, out_size = draw.randint(1, 700), draw.randint(1, 100)
    weight = torch.randn(out_size, in_size).to(draw.choice([torch.float32, *NARROW_TYPES]))
    x = _rows(draw, draw.randint(1, 40), in_size)
    _check_product(table, draw, weight, x, x.double() @ weight.double().T)


def _check_attention(table: KernelTable, draw: random.Random) -> None:
    num_kv_heads, group = draw.randint(1, 3), draw.choice([1, 3, 4, 7, 8])
    head_dim = draw.choice([64, 80, 96, 128, 256])
    shape = AttentionShape(group * num_kv_heads, num_kv_heads, head_dim, draw.choice([1, 8, 16, 32]))
    lengths = [draw.choice([1, 31, 32, 33, 255, 256, 257, 300]) for _ in range(draw.randint(1, 3))]
    case = PagedSequences(
        shape,
        lengths,
        seed=draw.randrange(1000),
        kv_dtype=draw.choice(KV_DTYPES),
    )
    slices = [(s, length - draw.randint(1, min(length, 20)), length) for s, length in enumerate(lengths)]
    window = draw.choice([None, None, 1, 40, 256])
    soft_cap = draw.choice([None, None, 0.5, 30.0])
    found = case.attend(table.paged_attention, slices, window=window, soft_cap=soft_cap)
    expected = case.attend(_REFERENCE.paged_attention, slices, window=window, soft_cap=soft_cap)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    (alone,) = case.attend(table.paged_attention, slices[-1:], window=window, soft_cap=soft_cap)
    assert torch.equal(alone, found[-1])


def _check_rows(table: KernelTable, draw: random.Random) -> None:
    num_rows, size = draw.randint(1, 40), draw.randint(1, 900)
    x, weight = _rows(draw, num_rows, size), torch.randn(size) if draw.random() < 0.7 else None
    torch.testing.assert_close(
        table.rms_norm(x, weight, 1e-5), _REFERENCE.rms_norm(x, weight, 1e-5), atol=1e-5, rtol=2e-5
    )
    activation = draw.choice(list(Activation))
    up = _rows(draw, num_rows, size)
    torch.testing.assert_close(
        table.gated_activation(x, up, activation),
        _REFERENCE.gated_activation(x, up, activation),
        atol=2e-6 * float(up.abs().max()),  # far below zero GELU is a difference of almost equal numbers
        rtol=2e-5,
    )
    head_dim, num_heads, num_kv_heads = 2 * draw.randint(1, 128), draw.randint(1, 9), draw.randint(1, 3)
    cos, sin = torch.randn(50, head_dim // 2), torch.randn(50, head_dim // 2)
    positions = torch.randint(0, 50, (num_rows,))
    found = torch.randn(num_rows, num_heads + num_kv_heads + 2, head_dim)
    expected = found.clone()
    for kernel_table, heads in ((table, found), (_REFERENCE, expected)):
        keys = heads[:, num_heads : num_heads + num_kv_heads]
        kernel_table.rotate(heads[:, :num_heads], keys, cos, sin, positions)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def _check_cache(table: KernelTable, draw: random.Random) -> None:
    num_blocks, block_size = draw.randint(1, 9), draw.randint(1, 33)
    num_kv_heads, head_dim = draw.randint(1, 4), draw.choice([1, 7, 64, 80, 256])
    num_tokens = draw.randint(1, num_blocks * block_size)
    fused = torch.randn(num_tokens, 2 * num_kv_heads, head_dim)
    slots = torch.randperm(num_blocks * block_size)[:num_tokens]
    sources = [draw.randrange(num_blocks) for _ in range(draw.randint(0, 4))]
    targets = [draw.randrange(num_blocks) for _ in sources]
    kv_dtype, results = draw.choice(KV_DTYPES), []
    for kernel_table in (table, _REFERENCE):
        layer = tuple(
            torch.zeros(num_blocks, num_kv_heads, block_size, row_size(kv_dtype, head_dim), dtype=kv_dtype)
            for _ in range(2)
        )
        kernel_table.write_kv(fused[:, :num_kv_heads], fused[:, num_kv_heads:], layer[0], layer[1], slots)
        kernel_table.copy_blocks([(layer[0], layer[1])], sources, targets)
        results.append(layer)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def main() -> None:
    num_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    for isa_name in ISAS:
        try:
            table = kernels.native_table(load_library(isa_name=isa_name))
        except NativeLibraryError:
            continue
        for seed in range(first_seed, first_seed + num_rounds):
            with num_threads(1 + seed % 2):
                run_round(table, seed)
        print(f"{isa_name}: {num_rounds:,} rounds from seed {first_seed}, nothing differs", flush=True)


if __name__ == "__main__":
    main()
