"""Random models: the shape that was asked for, the same bytes again, and the engine runs them."""

from __future__ import annotations

import pytest

from octavo.bench.random_model import SHAPES, write_random_model
from octavo.build import build_text
from octavo.cli.bench_random_model import SHAPES as NAMES
from octavo.cli.main import main
from octavo.config import ModelConfig


def test_the_command_line_names_every_shape():
    assert set(NAMES) == set(SHAPES)


def test_a_model_has_its_shape_and_a_tokenizer_that_returns_text(tmp_path):
    assert main(["bench", "random-model", "opt-tiny", str(tmp_path / "tiny")]) == 0
    text = build_text(ModelConfig(model=str(tmp_path / "tiny")))
    spec, shape = text.description.spec, SHAPES["opt-tiny"]
    assert (spec.num_layers, spec.hidden_size, spec.vocab_size) == (2, 64, shape.vocab_size)
    assert (
        text.tokenizer.decode(text.tokenizer.encode("Grüße, 世界", add_special_tokens=False)) == "Grüße, 世界"
    )


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_model("opt-tiny", tmp_path / name, seed=seed)
    first, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == same != other


@pytest.mark.parametrize(
    ("words", "complaint"), [(("opt-huge", "x"), "opt-huge"), (("opt-tiny", "tiny"), "model in it already")]
)
def test_wrong_input_is_told_in_one_line(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    write_random_model("opt-tiny", tmp_path / "tiny")
    assert main(["bench", "random-model", *words]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
