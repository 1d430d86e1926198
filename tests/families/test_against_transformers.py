"""Every family gives transformers' logits: in one pass, in chunks, token by token, and mixed.

Tiny random models in float32, so that a difference is a mistake and not rounding.
"""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from octavo.compute.kernels import reference_table
from octavo.model_spec import RopeSpec
from tests.paged_model import PagedModel, load_decoder
from tests.tiny_models import VARIANTS, VOCAB_SIZE, load_reference, make_tiny_model, write_gguf

TOLERANCE = 1e-4

# Longer than every window among the variants, and none a multiple of the block size.
PROMPT_LENGTHS = (93, 37, 9)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(3, VOCAB_SIZE) for _ in range(length)] for length in PROMPT_LENGTHS]


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def expected(folder: Path, prompts: list[list[int]]) -> list[Tensor]:
    return reference_logits(folder, prompts)


@pytest.fixture
def model(folder: Path) -> PagedModel:
    return PagedModel(load_decoder(folder))


def reference_logits(folder: Path, prompts: list[list[int]]) -> list[Tensor]:
    """By prompt, transformers' logits after each token: [num_tokens, vocab_size]."""
    reference = load_reference(folder)
    with torch.inference_mode():
        logits = [reference(torch.tensor([prompt])).logits[0] for prompt in prompts]
    # A model whose logits hardly depend on its input would agree with many wrong ones.
    assert logits[0].std(dim=0).mean() > 0.5
    return logits


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=TOLERANCE)


def test_whole_prompts_in_one_pass(
    model: PagedModel, prompts: list[list[int]], expected: list[Tensor]
) -> None:
    found = model.feed(dict(enumerate(prompts)))
    for index in range(len(prompts)):
        assert_same(found[index], expected[index])


def test_chunked_prefill(model: PagedModel, prompts: list[list[int]], expected: list[Tensor]) -> None:
    prompt = prompts[0]
    borders = [0, 1, 17, 32, 62, len(prompt)]
    found = [model.feed({0: prompt[start:end]})[0] for start, end in pairwise(borders)]
    assert_same(torch.cat(found), expected[0])


def test_decode_token_by_token(model: PagedModel, prompts: list[list[int]], expected: list[Tensor]) -> None:
    num_prefilled = 5
    found = {
        index: [logits] for index, logits in model.feed({i: p[:5] for i, p in enumerate(prompts)}).items()
    }
    for position in range(num_prefilled, len(prompts[0])):
        alive = {i: [prompt[position]] for i, prompt in enumerate(prompts) if position < len(prompt)}
        for index, logits in model.feed(alive).items():
            found[index].append(logits)
    for index, pieces in found.items():
        assert_same(torch.cat(pieces), expected[index])


def test_prefill_and_decode_rows_in_one_pass(
    model: PagedModel, prompts: list[list[int]], expected: list[Tensor]
) -> None:
    long, middle, short = prompts
    model.feed({1: middle[:30], 2: short[:4]})
    found = model.feed({2: short[4:5], 0: long[:50], 1: middle[30:31]})
    assert_same(found[0], expected[0][:50])
    assert_same(found[1], expected[1][30:31])
    assert_same(found[2], expected[2][4:5])
    found = model.feed({0: long[50:], 1: middle[31:], 2: short[5:6]})
    assert_same(found[0], expected[0][50:])
    assert_same(found[1], expected[1][31:])
    assert_same(found[2], expected[2][5:6])


def test_reference_kernels(folder: Path, prompts: list[list[int]], expected: list[Tensor]) -> None:
    """The kernels of machines that have no native ones: a GPU, or no C++ compiler."""
    model = PagedModel(load_decoder(folder, kernels=reference_table("under test")))
    found = model.feed({0: prompts[0][:60], 1: prompts[1]})
    assert_same(found[0], expected[0][:60])
    assert_same(found[1], expected[1])
    found = model.feed({2: prompts[2], 0: prompts[0][60:61]})
    assert_same(found[0], expected[0][60:61])
    assert_same(found[2], expected[2])


@pytest.mark.parametrize("block_size", [1, 5, 64])
def test_any_block_size(tmp_path: Path, prompts: list[list[int]], block_size: int) -> None:
    folder = make_tiny_model("mistral", tmp_path)
    expected = reference_logits(folder, prompts[:1])[0]
    model = PagedModel(load_decoder(folder), num_blocks=100, block_size=block_size)
    found = [model.feed({0: prompts[0][:40]})[0], model.feed({0: prompts[0][40:]})[0]]
    assert_same(torch.cat(found), expected)


@pytest.mark.parametrize("variant", ["llama", "llama-linear-rope", "mistral", "qwen2", "qwen3", "gpt2"])
def test_gguf_file_of_the_same_model(tmp_path: Path, prompts: list[list[int]], variant: str) -> None:
    folder = make_tiny_model(variant, tmp_path / variant)
    path = write_gguf(folder, tmp_path / "model.gguf")
    found = PagedModel(load_decoder(path)).feed({0: prompts[0]})[0]
    assert_same(found, reference_logits(folder, prompts[:1])[0])


def test_gguf_rope_factors_are_llama3_scaling(tmp_path: Path, prompts: list[list[int]]) -> None:
    """llama.cpp's converter turns llama3 scaling into a tensor of factors; the model stays the same."""
    folder = make_tiny_model("llama3-rope", tmp_path / "folder")
    reference = load_reference(folder)
    plain = make_tiny_model(
        "llama", tmp_path / "plain", rope_parameters={"rope_type": "default", "rope_theta": 500000.0}
    )
    scaled_frequencies = reference.model.rotary_emb.inv_freq
    plain_frequencies = load_reference(plain).model.rotary_emb.inv_freq
    factors = (plain_frequencies / scaled_frequencies).tolist()
    assert max(factors) > 2
    path = write_gguf(folder, tmp_path / "model.gguf", rope_factors=factors)
    decoder = load_decoder(path)
    assert isinstance(decoder.spec.positions, RopeSpec)
    assert decoder.spec.positions.scaling is not None
    found = PagedModel(decoder).feed({0: prompts[0]})[0]
    assert_same(found, reference_logits(folder, prompts[:1])[0])
