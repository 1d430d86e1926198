"""Settings: sizes in words, bounds, and the environment."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.config import (
    CacheConfig,
    SchedulerConfig,
    ServerConfig,
    environment_defaults,
    parse_bytes,
    parse_tokens,
)
from octavo.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("0", 0), ("4096", 4096), ("512MB", 512 * 2**20), ("2GiB", 2**31), ("1.5g", 3 * 2**29), (" 1 K ", 1024)],
)
def test_sizes_in_words(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "MB", "-1", "1X", "1,5GB", "ten", "1e9"])
def test_no_size_is_one_line_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write for example 512MB"):
        parse_bytes(text)


def test_tokens_in_words() -> None:
    assert parse_tokens("4k") == 4096
    assert parse_tokens("4096") == 4096
    with pytest.raises(ConfigError, match="number of tokens"):
        parse_tokens("4.5k")


@pytest.mark.parametrize(
    ("config", "settings", "flag"),
    [
        (CacheConfig, {"block_size": 0}, "--block-size"),
        (CacheConfig, {"block_size": 2048}, "--block-size"),
        (CacheConfig, {"kv_cache_memory": 0}, "--kv-cache-memory"),
        (SchedulerConfig, {"max_num_seqs": 0}, "--max-num-seqs"),
        (SchedulerConfig, {"max_num_batched_tokens": 100}, "--max-num-batched-tokens"),
        (ServerConfig, {"port": 65536}, "--port"),
        (ServerConfig, {"drain_timeout": -1.0}, "--drain-timeout"),
        (ServerConfig, {"drain_timeout": float("nan")}, "--drain-timeout"),
        (ServerConfig, {"api_key": ""}, "--api-key"),
        (ServerConfig, {"served_model_name": ""}, "--served-model-name"),
        (SchedulerConfig, {"seed": 2**63}, "--seed"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_its_flag(
    config: type[Any], settings: dict[str, Any], flag: str
) -> None:
    with pytest.raises(ConfigError, match=flag):
        config(**settings)


def test_the_api_key_may_come_from_the_environment() -> None:
    assert environment_defaults({"OCTAVO_API_KEY": "secret", "PATH": "/bin"}) == {"api_key": "secret"}
    assert environment_defaults({}) == {}
