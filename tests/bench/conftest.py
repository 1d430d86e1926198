"""A tiny model, and settings with which benches of it take a second."""

from __future__ import annotations

import pytest

from octavo.config import CacheConfig, ComputeConfig, EngineConfig, ModelConfig, SchedulerConfig
from tests.tiny_models import make_tiny_model, write_byte_tokenizer


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory) -> EngineConfig:
    folder = write_byte_tokenizer(make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny"))
    return EngineConfig(
        model=ModelConfig(model=str(folder)),
        compute=ComputeConfig(num_threads=1),
        cache=CacheConfig(kv_cache_memory=4 * 2**20),
        scheduler=SchedulerConfig(max_num_seqs=32, max_num_batched_tokens=128),
    )
