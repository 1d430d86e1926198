"""What every target of a comparison is given alike, and how options change it for one of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from octavo.checkpoint.source import ModelSource, resolve_model
from octavo.config import CacheConfig, ComputeConfig, EngineConfig, ModelConfig, SchedulerConfig
from octavo.errors import ConfigError

# Some peers size their KV cache in whole GiB, so that is what all get unless told otherwise.
DEFAULT_KV_BYTES = 1 << 30
_GROUPS = {"model": ModelConfig, "compute": ComputeConfig, "cache": CacheConfig, "scheduler": SchedulerConfig}


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """The common ground: model, threads, KV bytes, rows and tokens of a step, prefix caching."""

    config: EngineConfig

    @classmethod
    def of(cls, config: EngineConfig) -> TargetSettings:
        """With what must be equal made explicit."""
        cache, compute = config.cache, config.compute
        cache = replace(cache, kv_cache_memory=cache.kv_cache_memory or DEFAULT_KV_BYTES)
        compute = replace(compute, num_threads=compute.num_threads or _num_cores())
        return cls(config=replace(config, cache=cache, compute=compute))

    @property
    def source(self) -> ModelSource:
        """Raises ModelLoadError: there is no such model."""
        return resolve_model(self.config.model.model, revision=self.config.model.revision)

    @property
    def num_threads(self) -> int:
        return self.config.compute.num_threads or _num_cores()

    @property
    def kv_bytes(self) -> int:
        return self.config.cache.kv_cache_memory or DEFAULT_KV_BYTES

    def for_peer(self) -> dict[str, Any]:
        """As workers take it."""
        scheduler = self.config.scheduler
        return {
            "num_threads": self.num_threads,
            "kv_bytes": self.kv_bytes,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "prefix_caching": self.config.cache.prefix_caching,
        }


def change_config(config: EngineConfig, options: Mapping[str, str]) -> EngineConfig:
    """Options by the names of config.py's fields: `dtype=float32`.

    Raises:
        ConfigError: there is no such field, or the value cannot be read.
    """
    for name, text in options.items():
        group_name, field = _find_field(name)
        parse = field.metadata["parse"]
        if parse is bool:
            if text not in ("true", "false"):
                raise ConfigError(f"option {name} must be true or false, not {text!r}")
            value: Any = text == "true"
        else:
            try:
                value = parse(text)
            except ValueError:
                raise ConfigError(f"option {name}={text}: {text!r} cannot be read") from None
        group = replace(getattr(config, group_name), **{field.name: value})
        config = replace(config, **{group_name: group})
    return config


def serve_flags(config: EngineConfig) -> list[str]:
    """The flags of `octavo serve` that make this config, without the positional MODEL."""
    flags: list[str] = []
    for group_name in _GROUPS:
        group = getattr(config, group_name)
        for field in fields(group):
            value = getattr(group, field.name)
            if value != field.default and field.name != "model":
                flags += _flag(field, value)
    return flags


def _flag(field: Field[Any], value: Any) -> list[str]:
    flag = "--" + field.name.replace("_", "-")
    if field.metadata["parse"] is bool:
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(value, tuple):
        return [flag, ",".join(f"{key}={number:g}" for key, number in value)]
    return [flag, str(value)]


def _find_field(name: str) -> tuple[str, Field[Any]]:
    for group_name, group in _GROUPS.items():
        for field in fields(group):
            if field.name == name:
                return group_name, field
    raise ConfigError(f"there is no option {name!r}; options are called as flags are, for example dtype")


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
