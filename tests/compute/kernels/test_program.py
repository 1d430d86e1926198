"""A recorded pass gives the bits of the pass itself, for any number of tokens; what cannot be recorded is
noticed and made call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.signatures import AttentionBatch, StepInputs
from octavo.compute.models.decoder import Decoder
from octavo.model_spec import Activation, LearnedPositionsSpec, MlpSpec, NormKind, NormSpec
from tests.compute.kernels.lowbit_case import random_matrix
from tests.compute.kernels.threads import num_threads
from tests.paged_model import PagedModel, make_spec, random_weights

FEEDS = [
    {0: [1, 2, 3]},
    {0: [4]},
    {0: [5], 1: list(range(40))},
    {2: list(range(90))},  # more tokens than there is room for at first
    {0: [6], 1: [7], 2: [8]},
    {3: [9], 0: [1, 2, 3, 4, 5, 6, 7]},
]


def feed_all(decoder: Decoder) -> list[Tensor]:
    model = PagedModel(decoder)
    return [logits for pieces in FEEDS for logits in model.feed(pieces).values()]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def low_bit_weights() -> dict[str, object]:
    spec = low_bit_spec()
    weights: dict[str, object] = dict(random_weights(spec))
    for name, shape in spec.parameter_shapes().items():
        if len(shape) == 2:
            ggml_type = GgmlType.Q8_0 if "embedding" in name else GgmlType.Q4_1
            weights[name] = random_matrix(ggml_type, *shape)
    return weights


def low_bit_spec():
    mlp = MlpSpec(intermediate_size=96, activation=Activation.SILU, is_gated=True)
    attention = replace(make_spec().attention, num_heads=4, head_dim=16)
    return make_spec(hidden_size=64, attention=attention, mlp=mlp)


@pytest.mark.parametrize("is_low_bit", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_with_and_without(native: KernelTable, is_low_bit: bool, threads: int) -> None:
    spec = low_bit_spec() if is_low_bit else make_spec()
    make: Callable[[], dict] = low_bit_weights if is_low_bit else lambda: random_weights(spec)
    plain = feed_all(Decoder(spec, make(), replace(native, make_program=None)))
    decoder = Decoder(spec, make(), native)
    with num_threads(threads):
        assert_same(feed_all(decoder), plain)
    assert decoder.is_recorded


def test_another_cache_is_recorded_anew(native: KernelTable) -> None:
    decoder = Decoder(make_spec(), random_weights(make_spec()), native)
    first = feed_all(decoder)
    assert_same(feed_all(decoder), first)
    one, other = PagedModel(decoder, seed=1), PagedModel(decoder, seed=2)
    for tokens in ([1, 2, 3], [4], [5]):
        assert torch.equal(one.feed({0: tokens})[0], other.feed({0: tokens})[0])


@pytest.mark.parametrize(
    "overrides",
    [
        {"norm": NormSpec(kind=NormKind.LAYER, eps=1e-5, has_bias=True)},
        {"positions": LearnedPositionsSpec(num_positions=256)},
        {"mlp": MlpSpec(intermediate_size=40, activation=Activation.GELU, is_gated=True)},
    ],
    ids=["layer norm", "learned positions", "gelu"],
)
def test_a_pass_with_other_work_in_it_is_made_call_by_call(
    native: KernelTable, overrides: dict[str, object]
) -> None:
    spec = make_spec(**overrides)
    decoder = Decoder(spec, random_weights(spec), native)
    plain = Decoder(spec, random_weights(spec), replace(native, make_program=None))
    assert_same(feed_all(decoder), feed_all(plain))
    assert not decoder.is_recorded


def test_wrong_indices_are_refused_when_replayed(native: KernelTable) -> None:
    assert native.make_program is not None
    weight = native.pack_weight([torch.randn(20, 8)])
    program = native.make_program()
    no_sequences = AttentionBatch(
        torch.zeros(1, dtype=torch.int32),
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0, 1, dtype=torch.int32),
        0,
        0,
    )

    def run(token_ids: list[int]) -> Tensor:
        ids = torch.tensor(token_ids)
        inputs = StepInputs(ids, ids, ids, no_sequences)
        return program.run(lambda: native.weight_rows(weight, ids), inputs, None)

    assert torch.equal(run([3, 19]), run([3, 19]))
    assert program.is_recorded
    with pytest.raises(IndexError, match="call 0 of the recorded pass"):
        run([3, 20])
    assert run([4]).shape == (1, 8)
