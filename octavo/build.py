"""The composition root: the only file that knows every concrete class.

Puts text parts together without importing torch, and engines with it. Owns no behaviour of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.checkpoint.source import ModelSource, resolve_model
from octavo.config import EngineConfig, ModelConfig, limit_openmp_spinning
from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.cache_size import block_bytes, num_blocks_within
from octavo.control.engine import Engine
from octavo.control.scheduler.policy import make_policy
from octavo.control.scheduler.preemption import PreemptionCost
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.text.chat_template import ChatTemplate
from octavo.control.text.output_text import OutputText
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import ConfigError
from octavo.families import ModelDescription, describe_model
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.compute.quality import QualityComparison

# Share of the memory that is free beside the weights which the KV pool takes unless told otherwise.
# The rest is for activations, the operating system's file cache and whatever else the machine does.
DEFAULT_KV_SHARE = 0.4


@dataclass(frozen=True)
class TextParts:
    """What turns text into tokens and back, for one model."""

    source: ModelSource
    description: ModelDescription
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None


@dataclass(frozen=True)
class EngineFacts:
    """What an engine turned out to be, in numbers: for admission, doctor and metrics.

    Attributes:
        load_seconds: until the engine could run, packing included.
        pack_seconds, packed_bytes: what laying the matrices out for the kernels took, and their size then.
    """

    model_name: str
    max_model_len: int
    vocab_size: int
    num_blocks: int
    block_size: int
    kv_bytes: int
    weight_bytes: int
    device: str
    dtype: str
    kernels: str
    load_seconds: float
    pack_seconds: float
    packed_bytes: int


@dataclass(frozen=True)
class EngineParts:
    engine: Engine
    facts: EngineFacts


def build_text(config: ModelConfig) -> TextParts:
    """Find the model and load its tokenizer and chat template. Imports no torch.

    Raises:
        ModelLoadError: there is no such model, or its files are damaged or of an unsupported kind.
    """
    source = resolve_model(config.model, revision=config.revision)
    text_source = source if config.tokenizer is None else resolve_model(config.tokenizer)
    tokenizer = Tokenizer.load(text_source)
    return TextParts(
        source=source,
        description=describe_model(source),
        tokenizer=tokenizer,
        chat_template=ChatTemplate.load(text_source, tokenizer, config.chat_template),
    )


def build_engine(
    config: EngineConfig, *, on_progress: Callable[[int, int], None] | None = None
) -> EngineParts:
    """Load the model and make an engine for it.

    Args:
        on_progress: called with (parameters loaded, parameters in all) while weights load.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: a setting does not fit the model or the machine.
    """
    started_seconds = time.monotonic()
    limit_openmp_spinning()
    # Imported here so that text-only users of this file (the front process) never load torch.
    from octavo.compute.executor.in_process import InProcessExecutor  # noqa: PLC0415
    from octavo.compute.executor.worker import Worker  # noqa: PLC0415

    description = describe_model(resolve_model(config.model.model, revision=config.model.revision))
    spec = description.spec
    max_model_len = _resolve_max_model_len(config.model.max_model_len, spec.max_positions)
    worker = Worker.load(
        description, config.compute, kv_cache_dtype=config.cache.kv_cache_dtype, on_progress=on_progress
    )
    block_size = config.cache.block_size
    bytes_per_block = block_bytes(spec, block_size, worker.kv_bytes_per_element, worker.kv_scale_bytes)
    budget_bytes = config.cache.kv_cache_memory or int(DEFAULT_KV_SHARE * worker.free_memory_bytes())
    num_blocks = num_blocks_within(budget_bytes, bytes_per_block)
    num_host_blocks = _num_host_blocks(config.cache.swap_space, bytes_per_block)
    worker.allocate_kv(num_blocks, block_size, num_host_blocks=num_host_blocks)
    cache = BlockManager(
        num_blocks,
        block_size,
        prefix_caching=config.cache.prefix_caching,
        num_host_blocks=num_host_blocks,
    )
    target_itl_ms = config.scheduler.target_itl_ms
    scheduler = Scheduler(
        cache,
        max_num_seqs=config.scheduler.max_num_seqs,
        max_num_batched_tokens=config.scheduler.max_num_batched_tokens,
        policy=make_policy(config.scheduler.policy, dict(config.scheduler.fair_weights)),
        target_itl_seconds=None if target_itl_ms is None else target_itl_ms / 1000,
        preemption_cost=PreemptionCost(bytes_per_block) if num_host_blocks else None,
    )
    engine = Engine(
        scheduler,
        InProcessExecutor(worker),
        eos_token_ids=description.eos_token_ids,
        vocab_size=spec.vocab_size,
        max_model_len=max_model_len,
        max_queued_requests=config.scheduler.max_queued_requests,
        max_queued_tokens=config.scheduler.max_queued_tokens,
        queue_timeout_seconds=config.scheduler.queue_timeout,
        seed=config.scheduler.seed,
        find_stop=_LazyStopFinder(config.model),
    )
    facts = EngineFacts(
        model_name=description.source.name,
        max_model_len=max_model_len,
        vocab_size=spec.vocab_size,
        num_blocks=num_blocks,
        block_size=block_size,
        kv_bytes=num_blocks * bytes_per_block,
        weight_bytes=worker.weight_bytes,
        device=worker.device_name,
        dtype=worker.dtype_name,
        kernels=worker.kernels_name,
        load_seconds=time.monotonic() - started_seconds,
        pack_seconds=worker.packing.num_seconds,
        packed_bytes=worker.packing.num_bytes,
    )
    return EngineParts(engine, facts)


def build_quality_comparison(
    config: EngineConfig, *, kv_cache_dtypes: Sequence[str], max_window: int
) -> QualityComparison:
    """Load the model in float32 throughout, and as configured once for each format of keys and values.

    Args:
        kv_cache_dtypes: formats as `--kv-cache-dtype` takes them.
        max_window: tokens of the longest text that will be read at once.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: a setting does not fit the model or the machine.
    """
    limit_openmp_spinning()
    from octavo.compute.executor.worker import Worker  # noqa: PLC0415  (loads torch)
    from octavo.compute.quality import QualityComparison  # noqa: PLC0415

    description = describe_model(resolve_model(config.model.model, revision=config.model.revision))
    in_float32 = replace(config.compute, dtype="float32", quantization="none", repack_cache=None)
    reference = Worker.load(description, in_float32, kv_cache_dtype="float32")
    others = [
        Worker.load(description, config.compute, kv_cache_dtype=kv_cache_dtype)
        for kv_cache_dtype in kv_cache_dtypes
    ]
    return QualityComparison([reference, *others], max_window=max_window)


def export_model(config: ModelConfig, folder: Path, *, dtype: str) -> None:
    """Write a model as a Hugging Face folder of float weights, tokenizer included.

    Args:
        folder: exists already.
        dtype: float32, bfloat16 or float16.

    Raises:
        ModelLoadError: the model cannot be loaded, or is of a kind that is not written.
    """
    from octavo.compute.models.export import export_folder  # noqa: PLC0415  (loads torch)

    text = build_text(config)
    export_folder(text.description, folder, dtype=dtype)
    text.tokenizer.save(folder)


class _LazyStopFinder:
    """Stop strings in the outputs of beam searches. The engine has no text until a request needs it."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._tokenizer: Tokenizer | None = None

    def __call__(
        self, params: SamplingParams, prompt_token_ids: Sequence[int]
    ) -> Callable[[Sequence[int]], bool]:
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self._config)
        tokenizer = self._tokenizer

        def find_stop(output_token_ids: Sequence[int]) -> bool:
            output_text = OutputText(tokenizer, params, prompt_token_ids)
            return output_text.push(output_token_ids, finished=True).stop_string is not None

        return find_stop


def _load_tokenizer(config: ModelConfig) -> Tokenizer:
    if config.tokenizer is not None:
        return Tokenizer.load(resolve_model(config.tokenizer))
    return Tokenizer.load(resolve_model(config.model, revision=config.revision))


def _num_host_blocks(swap_space: int, bytes_per_block: int) -> int:
    """Blocks of the host pool; none where there is to be none."""
    if swap_space == 0:
        return 0
    if swap_space < bytes_per_block:
        raise ConfigError(
            f"--swap-space of {swap_space} bytes cannot hold one block of {bytes_per_block} bytes"
        )
    return swap_space // bytes_per_block


def _resolve_max_model_len(wanted: int | None, max_positions: int) -> int:
    if wanted is None:
        return max_positions
    if not 1 <= wanted <= max_positions:
        raise ConfigError(
            f"--max-model-len must be from 1 to {max_positions}, the model's own limit, not {wanted}"
        )
    return wanted
