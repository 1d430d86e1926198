"""What `octavo doctor` finds: kernels, model, what would fit. Loads no weights; prints nothing."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.machine import Machine, describe_machine
from octavo.build import DEFAULT_KV_SHARE
from octavo.checkpoint.source import resolve_model
from octavo.checkpoint.starter import INSTALL_COMMAND, find_starter
from octavo.compute.executor.device import (
    describe_device,
    free_memory_bytes,
    resolve_device,
    resolve_dtype,
    resolve_kv_dtype,
    resolve_matrix_formats,
    resolve_num_threads,
)
from octavo.compute.kernels import KernelChoice, for_device
from octavo.compute.kernels.kv_rows import scale_bytes
from octavo.compute.models.weights import count_weight_bytes
from octavo.config import EngineConfig
from octavo.control.cache.cache_size import block_bytes, blocks_for_tokens
from octavo.errors import ModelNotFoundError
from octavo.families import ModelDescription, describe_model

# Lengths, prompt and output together, for which the number of concurrent sequences is told.
_TYPICAL_TOKENS = (256, 1024, 4096, 16384)


@dataclass(frozen=True, kw_only=True)
class DeviceFindings:
    """Attributes:
    name: the device that would be used.
    free_bytes: memory on it that can still be allocated.
    kernels: what each operation would run on, and why.
    """

    name: str
    dtype: str
    num_threads: int
    free_bytes: int
    kernels: list[KernelChoice]


@dataclass(frozen=True, kw_only=True)
class ModelFindings:
    """Attributes:
    weight_bytes: at the chosen number format, in memory.
    """

    name: str
    path: str
    family: str
    num_parameters: int
    num_layers: int
    max_positions: int
    weight_bytes: int


@dataclass(frozen=True, kw_only=True)
class FitFindings:
    """What a KV pool would hold.

    Attributes:
        kv_bytes: the pool's budget: as set, or the default share of what the weights leave.
        bytes_per_token: keys and values of one token, over all layers.
        num_sequences_by_tokens: length of a sequence -> how many would fit at the same time.
    """

    fits: bool
    kv_bytes: int
    bytes_per_token: int
    block_size: int
    num_blocks: int
    num_tokens: int
    num_sequences_by_tokens: dict[int, int]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Attributes:
    starter_path: the starter model's file; None: not installed.
    starter_install: the command that installs it.
    model, fit: None where no model was named and the starter is not installed.
    """

    machine: Machine
    device: DeviceFindings
    starter_path: str | None
    starter_install: str
    model: ModelFindings | None
    fit: FitFindings | None


def examine(config: EngineConfig) -> Findings:
    """Look at the machine, and at the model that the settings name.

    Raises:
        ConfigError: the device cannot be had.
        ModelLoadError: the model that was named cannot be found or read.
    """
    device = resolve_device(config.compute.device)
    dtype = resolve_dtype(config.compute.dtype, device)
    kernels = for_device(device, dtype)
    free_bytes = free_memory_bytes(device)
    try:
        starter_path = str(find_starter())
    except ModelNotFoundError:
        starter_path = None
    model, fit = None, None
    if config.model.model is not None or starter_path is not None:
        description = describe_model(resolve_model(config.model.model, revision=config.model.revision))
        weight_bytes = count_weight_bytes(description, dtype, resolve_matrix_formats(config.compute, kernels))
        model = _model_findings(description, weight_bytes)
        kv_dtype = resolve_kv_dtype(config.cache.kv_cache_dtype, config.compute.dtype, dtype, kernels)
        kv_bytes = (kv_dtype.itemsize, scale_bytes(kv_dtype))
        fit = _fit_findings(description, config, free_bytes, model.weight_bytes, kv_bytes)
    return Findings(
        machine=describe_machine(),
        device=DeviceFindings(
            name=describe_device(device),
            dtype=str(dtype).removeprefix("torch."),
            num_threads=resolve_num_threads(config.compute.num_threads),
            free_bytes=free_bytes,
            kernels=kernels.describe(),
        ),
        starter_path=starter_path,
        starter_install=INSTALL_COMMAND,
        model=model,
        fit=fit,
    )


def _model_findings(description: ModelDescription, weight_bytes: int) -> ModelFindings:
    spec = description.spec
    return ModelFindings(
        name=description.source.name,
        path=str(description.source.path),
        family=description.family,
        num_parameters=spec.num_parameters,
        num_layers=spec.num_layers,
        max_positions=spec.max_positions,
        weight_bytes=weight_bytes,
    )


def _fit_findings(
    description: ModelDescription,
    config: EngineConfig,
    free_bytes: int,
    weight_bytes: int,
    element_and_scale_bytes: tuple[int, int],
) -> FitFindings:
    spec, block_size = description.spec, config.cache.block_size
    left_bytes = max(free_bytes - weight_bytes, 0)
    kv_bytes = config.cache.kv_cache_memory or int(DEFAULT_KV_SHARE * left_bytes)
    num_blocks = kv_bytes // block_bytes(spec, block_size, *element_and_scale_bytes)
    longest = min(config.model.max_model_len or spec.max_positions, spec.max_positions)
    lengths = [length for length in _TYPICAL_TOKENS if length < longest]
    return FitFindings(
        fits=num_blocks > 0 and weight_bytes + kv_bytes <= free_bytes,
        kv_bytes=kv_bytes,
        bytes_per_token=spec.kv_bytes_per_token(*element_and_scale_bytes),
        block_size=block_size,
        num_blocks=num_blocks,
        num_tokens=num_blocks * block_size,
        num_sequences_by_tokens={
            length: num_blocks // blocks_for_tokens(length, block_size) for length in [*lengths, longest]
        },
    )
