"""The quality bench: its sums are the model's own probabilities, and its text is there and stays the same."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import gguf
import pytest

from octavo.bench.prose import read_prose
from octavo.bench.quality import make_windows, run_quality
from octavo.bench.quality_spec import QualitySpec, parse_kv_dtypes
from octavo.build import build_engine, build_quality_comparison, build_text
from octavo.config import CacheConfig, ModelConfig
from octavo.errors import ConfigError
from octavo.sampling_params import SamplingParams
from tests.tiny_models import make_tiny_model, write_byte_tokenizer, write_gguf

SPEC = QualitySpec(num_tokens=300, window=100)


def test_the_reference_against_itself_differs_in_nothing(tiny_config):
    """The tiny model's weights are float32: with float32 keys and values it is the reference."""
    report = run_quality(tiny_config, replace(SPEC, kv_cache_dtypes=("float32",)))
    (same,) = report.forms
    assert (same.perplexity, same.perplexity_ratio) == (report.reference_perplexity, 1.0)
    assert (same.mean_kl, same.max_kl, same.top1_agreement) == (0.0, 0.0, 1.0)
    assert report.num_tokens == 300


def test_packed_matrices_are_compared_with_the_same_numbers_in_float32(tmp_path, tiny_config):
    folder = write_byte_tokenizer(
        make_tiny_model("llama", tmp_path / "wide", hidden_size=96, intermediate_size=128)
    )
    path = write_gguf(folder, tmp_path / "packed.gguf", quantization=gguf.GGMLQuantizationType.Q4_1)
    config = replace(tiny_config, model=ModelConfig(model=str(path), tokenizer=str(folder)))
    seen: list[tuple[int, int]] = []
    report = run_quality(config, SPEC, on_tokens=lambda read, wanted: seen.append((read, wanted)))
    assert seen[-1] == (300, 300)
    assert len(seen) == report.num_windows
    for form in report.forms:
        # Only rounding of activations and of keys and values lies between the two.
        assert form.mean_kl < 0.01
        assert form.perplexity_ratio == pytest.approx(1.0, abs=0.01)
        assert 0.9 < form.top1_agreement <= 1.0
        assert form.max_kl >= form.mean_kl


def test_losses_are_those_of_prompt_logprobs(tiny_config):
    """The engine scores the same tokens the same, by another way."""
    token_ids = list(range(3, 153))
    config = replace(tiny_config, cache=CacheConfig(kv_cache_memory=2**20, kv_cache_dtype="float32"))
    comparison = build_quality_comparison(config, kv_cache_dtypes=("float16",), max_window=150)
    reference, half = comparison.read(token_ids, num_given=1)
    assert reference.num_rows == half.num_rows == 149
    assert 0 < half.kl < 0.01
    parts = build_engine(config)
    try:
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        parts.engine.submit("scored", token_ids, params)
        entries = [entry for delta in parts.engine.step() for entry in delta.prompt_logprobs or ()]
        while parts.engine.has_work:
            entries += [entry for delta in parts.engine.step() for entry in delta.prompt_logprobs or ()]
    finally:
        parts.engine.close()
    logprobs = [entry.logprob for entry in entries if entry is not None]
    assert len(logprobs) == 149
    assert reference.loss == pytest.approx(-sum(logprobs), rel=1e-5)


def test_given_tokens_are_not_scored(tiny_config):
    comparison = build_quality_comparison(tiny_config, kv_cache_dtypes=("float32",), max_window=150)
    token_ids = list(range(3, 153))
    late = comparison.read(token_ids, num_given=100)[0]
    early = comparison.read(token_ids[:100], num_given=1)[0]
    whole = comparison.read(token_ids, num_given=1)[0]
    assert (early.num_rows, late.num_rows) == (99, 50)
    assert early.loss + late.loss == pytest.approx(whole.loss, rel=1e-9)


def test_windows_hold_the_text_once_and_score_exactly_what_is_wanted(tiny_config):
    text = build_text(tiny_config.model)
    prose = read_prose(None, min_chars=5000).text
    windows = list(make_windows(text, prose, QualitySpec(num_tokens=250, window=100)))
    assert [len(window) - 1 for window in windows] == [99, 99, 52]
    bos = text.tokenizer.bos_token_id
    bodies = [window[1:] if window[0] == bos else window for window in windows]
    read = [token_id for body in bodies for token_id in body]
    assert read == text.tokenizer.encode(prose, add_special_tokens=False)[: len(read)]


def test_the_text_is_the_same_every_time_and_long_enough():
    first, second = (read_prose(None, min_chars=20_000) for _ in range(2))
    assert first == second
    assert len(first.text) >= 20_000
    assert "Python Software Foundation" in (first.licence or "")
    assert read_prose(None, min_chars=40_000).text.startswith(first.text)


def test_the_json_says_what_was_read_on_what(tiny_config, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("It was a bright cold day in April. " * 20)
    report = run_quality(tiny_config, QualitySpec(num_tokens=40, window=30, text=str(path)))
    numbers = json.loads(json.dumps(report.as_json()))
    assert numbers["text"] | {"sha256": ""} == {"source": "own.txt", "licence": None, "sha256": ""}
    assert numbers["num_tokens"] == 40
    assert {"cpu", "num_cores"} <= numbers["machine"].keys()
    for form in numbers["forms"]:
        assert math.log(form["perplexity_ratio"]) == pytest.approx(
            math.log(form["perplexity"] / numbers["reference"]["perplexity"]), abs=1e-6
        )


def test_what_cannot_be_compared_is_refused(tiny_config, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("few words")
    with pytest.raises(ConfigError, match="no more than"):
        run_quality(tiny_config, QualitySpec(text=str(short)))
    with pytest.raises(ConfigError, match="512, the model's own limit"):
        run_quality(tiny_config, QualitySpec(window=513))
    short.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_prose(short, min_chars=1)
    short.write_text(" \n")
    with pytest.raises(ConfigError, match="no text"):
        read_prose(short, min_chars=1)
    for wrong in ("int9", "auto,auto", ""):
        with pytest.raises(ConfigError, match="formats"):
            parse_kv_dtypes(wrong)
