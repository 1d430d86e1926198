"""A GGUF file exported as a Hugging Face folder is the same model, to the bit."""

from __future__ import annotations

import gguf
import pytest
import torch

from octavo.build import build_text
from octavo.checkpoint.source import resolve_model
from octavo.compute.models.export import export_folder
from octavo.compute.models.weights import load_weights
from octavo.config import ModelConfig
from octavo.errors import UnsupportedModelError
from octavo.families import describe_model
from tests.tiny_models import load_reference, make_tiny_model, write_byte_tokenizer, write_gguf


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_exported_weights_are_those_of_the_file(tmp_path, family):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    made = make_tiny_model(family, tmp_path / "made", **sizes)
    path = write_gguf(made, tmp_path / "model.gguf", quantization=gguf.GGMLQuantizationType.Q8_0)
    description = describe_model(resolve_model(str(path)))
    folder = tmp_path / "exported"
    folder.mkdir()
    export_folder(description, folder, dtype="float32")
    again = describe_model(resolve_model(str(folder)))
    assert again.spec.parameter_shapes() == description.spec.parameter_shapes()
    device = torch.device("cpu")
    before = load_weights(description, dtype=torch.float32, device=device)
    after = load_weights(again, dtype=torch.float32, device=device)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # And transformers reads it as the model that was converted, but for rounding to 8 bits.
    prompt = torch.tensor([[5, 17, 200, 33, 8]])
    with torch.inference_mode():
        logits = load_reference(folder)(prompt).logits
        original = load_reference(made)(prompt).logits
    assert torch.nn.functional.cosine_similarity(logits, original, dim=-1).min() > 0.99


def test_the_tokenizer_comes_with_it(tmp_path):
    made = write_byte_tokenizer(make_tiny_model("llama", tmp_path / "made"))
    before = build_text(ModelConfig(model=str(made)))
    folder = tmp_path / "exported"
    folder.mkdir()
    export_folder(before.description, folder, dtype="bfloat16")
    before.tokenizer.save(folder)
    after = build_text(ModelConfig(model=str(folder)))
    text = "Paged, <s> and more"
    assert after.tokenizer.encode(text) == before.tokenizer.encode(text)
    assert after.tokenizer.named_tokens == before.tokenizer.named_tokens


def test_other_families_are_refused_by_name(tmp_path):
    description = describe_model(resolve_model(str(make_tiny_model("opt", tmp_path / "made"))))
    with pytest.raises(UnsupportedModelError, match="'opt' cannot be exported"):
        export_folder(description, tmp_path, dtype="float32")
