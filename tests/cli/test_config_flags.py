"""Flags from config.py and back: what is typed arrives, what is not typed is the default."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import octavo
from octavo.cli.config_flags import (
    ENGINE_GROUPS,
    add_config_flags,
    add_engine_flags,
    flag_words,
    read_config,
    read_engine_config,
)
from octavo.cli.config_page import render_page
from octavo.cli.sampling_flags import add_sampling_flags, field_helps, sampling_given
from octavo.config import EngineConfig, ServerConfig
from octavo.sampling_params import SamplingParams


def parse(*typed: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_engine_flags(parser)
    add_config_flags(parser, ServerConfig)
    return vars(parser.parse_args(typed))


def test_nothing_typed_gives_the_defaults():
    assert parse() == {}
    assert read_engine_config({}) == EngineConfig()


def test_every_field_has_a_flag_that_arrives():
    values = {"port": "1", "block_size": "8", "max_num_seqs": "4", "device": "cpu", "dtype": "float32"}
    values |= {"policy": "priority", "fair_weights": "a=2,b=0.5", "quantization": "int8"}
    values["kv_cache_dtype"] = "float16"
    for group in (*ENGINE_GROUPS, ServerConfig):
        for field in fields(group):
            parse_value = field.metadata["parse"]
            text = values.get(field.name, "2048")
            expected = not field.default if parse_value is bool else parse_value(text)
            typed = flag_words(field, expected)
            given = parse(*typed)
            assert given == {field.name: expected}
            if field.name != "fair_weights":  # needs --policy fair beside it
                assert getattr(read_config(group, given), field.name) == expected


def test_weights_of_keys_are_read():
    config = read_engine_config(parse("--policy", "fair", "--fair-weights", "alice=2,bob=0.5"))
    assert config.scheduler.fair_weights == (("alice", 2.0), ("bob", 0.5))
    assert read_engine_config(parse("--no-prefix-caching")).cache.prefix_caching is False


def test_units_are_read():
    config = read_engine_config(parse("--kv-cache-memory", "512MB", "--max-model-len", "4k"))
    assert config.cache.kv_cache_memory == 512 * 2**20
    assert config.model.max_model_len == 4096


def test_a_flag_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("OCTAVO_API_KEY", "from the environment")
    assert read_config(ServerConfig, parse()).api_key == "from the environment"
    assert read_config(ServerConfig, parse("--api-key", "typed")).api_key == "typed"


def test_the_settings_page_is_up_to_date():
    page = Path(octavo.__file__).parent.parent / "docs" / "config.md"
    assert page.read_text() == render_page(), "run: python -m octavo.cli.config_page > docs/config.md"


def test_every_sampling_field_is_described():
    assert field_helps().keys() == {field.name for field in fields(SamplingParams)}
    assert all(field_helps().values())


def test_sampling_flags_arrive():
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser, defaults={})
    typed = ["--temperature", "0.5", "--stop", "a", "--stop", "b", "--stop-token-ids", "1,2", "--ignore-eos"]
    typed += ["--logit-bias", "5=-1.5", "--logit-bias", "6=2", "--no-skip-special-tokens", "--seed", "7"]
    assert SamplingParams(**sampling_given(parser.parse_args(typed))) == SamplingParams(
        temperature=0.5,
        stop=("a", "b"),
        stop_token_ids=(1, 2),
        ignore_eos=True,
        logit_bias={5: -1.5, 6: 2.0},
        skip_special_tokens=False,
        seed=7,
    )
    assert sampling_given(parser.parse_args([])) == {}
