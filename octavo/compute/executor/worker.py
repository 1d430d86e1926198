"""Worker: one rank. Holds the model, the KV bytes and the runner on one device, and obeys plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from octavo.compute.executor.device import (
    describe_device,
    free_memory_bytes,
    resolve_device,
    resolve_dtype,
    resolve_kv_dtype,
    resolve_matrix_formats,
    resolve_num_threads,
    return_freed_memory,
)
from octavo.compute.executor.packing_cache import PackingCache, cache_key
from octavo.compute.executor.packing_meter import PackingMeter
from octavo.compute.kernels import KernelTable, for_device, set_num_threads
from octavo.compute.kernels.kv_rows import scale_bytes
from octavo.compute.models.decoder import Decoder
from octavo.compute.models.weights import load_weights
from octavo.compute.runner.kv_storage import KvStorage
from octavo.compute.runner.runner import ModelRunner
from octavo.config import ComputeConfig
from octavo.errors import ConfigError
from octavo.families import ModelDescription
from octavo.step import StepPlan, StepResult


def open_packing_cache(
    description: ModelDescription, compute: ComputeConfig, kernels: KernelTable
) -> PackingCache | None:
    """The file of `--repack-cache` for this model in these formats; None: there is to be none.

    Raises:
        ConfigError: the folder cannot be written, or the kernels lay nothing out.
    """
    if compute.repack_cache is None:
        return None
    if kernels.layout_version is None:
        reason = kernels.describe()[0].reason
        raise ConfigError(f"--repack-cache needs the native CPU kernels: {reason}")
    formats = resolve_matrix_formats(compute, kernels)
    facts = (kernels.layout_version, compute.dtype, formats.quantization, description.spec)
    key = cache_key(description.source.path, *facts)
    return PackingCache(Path(compute.repack_cache).expanduser(), key, kernels.pack_weight)


class Worker:
    """One rank: first loaded, then given its cache, then run.

    Attributes:
        packing: what laying out the weights cost.
    """

    def __init__(
        self, decoder: Decoder, kernels: KernelTable, kv_dtype: torch.dtype, packing: PackingMeter
    ) -> None:
        self.packing = packing
        self._decoder = decoder
        self._kernels = kernels
        self._kv_dtype = kv_dtype
        self._runner: ModelRunner | None = None

    @classmethod
    def load(
        cls,
        description: ModelDescription,
        compute: ComputeConfig,
        *,
        kv_cache_dtype: str = "auto",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Worker:
        """Load a model onto the device of the settings.

        Args:
            kv_cache_dtype: what the cache is to hold, as in the settings.
            on_progress: called with (parameters loaded, parameters in all) while weights load.

        Raises:
            ConfigError: the device, format or number of threads cannot be had.
            CheckpointError: the weights cannot be loaded.
        """
        device = resolve_device(compute.device)
        dtype = resolve_dtype(compute.dtype, device)
        num_threads = resolve_num_threads(compute.num_threads)
        kernels = for_device(device, dtype)
        set_num_threads(kernels, num_threads)
        kv_dtype = resolve_kv_dtype(kv_cache_dtype, compute.dtype, dtype, kernels)
        weights = load_weights(
            description,
            dtype=dtype,
            device=device,
            formats=resolve_matrix_formats(compute, kernels),
            on_progress=on_progress,
        )
        cache = open_packing_cache(description, compute, kernels)
        packing = PackingMeter(kernels.pack_weight if cache is None else cache)
        decoder = Decoder(description.spec, weights, replace(kernels, pack_weight=packing))
        if cache is not None:
            cache.finish()
        return_freed_memory()
        return cls(decoder, kernels, kv_dtype, packing)

    @property
    def weight_bytes(self) -> int:
        return self._decoder.weight_bytes

    @property
    def kv_bytes_per_element(self) -> int:
        return self._kv_dtype.itemsize

    @property
    def kv_scale_bytes(self) -> int:
        """What each row of the cache has beside its elements."""
        return scale_bytes(self._kv_dtype)

    @property
    def kv_dtype_name(self) -> str:
        """The format of the keys and values: for example "float16"."""
        return str(self._kv_dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        return describe_device(self._decoder.device)

    @property
    def dtype_name(self) -> str:
        """The format of the weight matrices: "float32", or for example "Q4_1 + Q8_0"."""
        return self._decoder.format_name

    @property
    def kernels_name(self) -> str:
        return self._kernels.name

    def free_memory_bytes(self) -> int:
        """Memory on the worker's device that can still be allocated, beside the weights."""
        return free_memory_bytes(self._decoder.device)

    def allocate_kv(self, num_blocks: int, block_size: int, *, num_host_blocks: int = 0) -> None:
        """Take the memory of the KV cache, and of the host pool to which it is swapped.

        Raises:
            ConfigError: it cannot be had.
        """
        storage = KvStorage(
            self._decoder.spec,
            self._kernels,
            num_blocks=num_blocks,
            block_size=block_size,
            dtype=self._kv_dtype,
            device=self._decoder.device,
            num_host_blocks=num_host_blocks,
        )
        self._runner = ModelRunner(self._decoder, storage)

    def run(self, plan: StepPlan) -> StepResult:
        """Calculate one plan.

        Raises:
            RuntimeError: the worker has no cache yet.
            Exception: whatever went wrong in the pass; the worker stays usable.
        """
        return self._ready_runner().run(plan)

    def all_logits(self, plan: StepPlan) -> Iterator[Tensor]:
        """The scores after every token of a plan, some rows at a time; see ModelRunner.all_logits."""
        return self._ready_runner().all_logits(plan)

    def _ready_runner(self) -> ModelRunner:
        if self._runner is None:
            raise RuntimeError("allocate_kv must come before the first plan")
        return self._runner
