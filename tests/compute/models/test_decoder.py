"""The decoder's own rules: which weights it takes, and what it keeps of them."""

from __future__ import annotations

import pytest
import torch

from octavo.compute.kernels import for_device
from octavo.compute.models.decoder import Decoder
from tests.paged_model import CPU, PagedModel, make_spec, random_decoder, random_weights


def test_weights_are_taken_over() -> None:
    spec = make_spec()
    weights = random_weights(spec)
    weight_bytes = sum(tensor.nbytes for tensor in weights.values())
    decoder = Decoder(spec, weights, for_device(CPU))
    assert weights == {}
    assert decoder.weight_bytes == weight_bytes == spec.num_parameters * 4


@pytest.mark.parametrize("name", ["layers.1.attention.key.weight", "final_norm.weight"])
def test_missing_weight_is_named(name: str) -> None:
    weights = random_weights(make_spec())
    del weights[name]
    with pytest.raises(ValueError, match=name):
        Decoder(make_spec(), weights, for_device(CPU))


def test_weight_of_wrong_shape_is_named() -> None:
    weights = random_weights(make_spec())
    weights["layers.0.mlp.down.weight"] = torch.zeros(24, 41)
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.down\.weight.*\(24, 40\), not \(24, 41\)"):
        Decoder(make_spec(), weights, for_device(CPU))


def test_unknown_weight_is_named() -> None:
    weights = random_weights(make_spec()) | {"layers.0.attention.sink": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.sink"):
        Decoder(make_spec(), weights, for_device(CPU))


def test_untied_head_is_its_own_matrix() -> None:
    tied = PagedModel(random_decoder()).feed({0: [1, 2, 3]})[0]
    untied_decoder = random_decoder(make_spec(is_head_tied=False))
    untied = PagedModel(untied_decoder).feed({0: [1, 2, 3]})[0]
    assert not torch.allclose(tied, untied)


def test_logits_are_float32_in_any_format() -> None:
    spec = make_spec()
    weights = {name: tensor.bfloat16() for name, tensor in random_weights(spec).items()}
    decoder = Decoder(spec, weights, for_device(CPU, torch.bfloat16))
    found = PagedModel(decoder).feed({0: [1, 2, 3, 4]})[0]
    expected = PagedModel(random_decoder()).feed({0: [1, 2, 3, 4]})[0]
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
