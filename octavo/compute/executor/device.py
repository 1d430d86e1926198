"""Which device and number format to calculate with, how many threads, and how much memory is free."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from octavo.compute.kernels import KernelTable
from octavo.compute.models.matrix_formats import MatrixFormats
from octavo.config import ComputeConfig
from octavo.errors import ConfigError

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_KV_DTYPES = _DTYPES | {"int8": torch.int8}


def resolve_device(name: str) -> torch.device:
    """The device of a `--device` setting; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and there is none that torch can use.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ConfigError(f"--device must be auto, cpu or cuda, not {name!r}")
    if not torch.cuda.is_available():
        reason = (
            "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no CUDA GPU"
        )
        raise ConfigError(f"--device cuda: {reason}; use --device cpu")
    return torch.device("cuda", torch.cuda.current_device())


def describe_device(device: torch.device) -> str:
    """A device's name for people: "cpu", or "cuda:0 (NVIDIA ...)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of a `--dtype` setting; `auto` is float32 on a CPU, bfloat16 on a GPU.

    Raises:
        ConfigError: the format has no such name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ConfigError(f"--dtype must be auto, {', '.join(_DTYPES)}, not {name!r}")
    return _DTYPES[name]


def resolve_kv_dtype(kv_name: str, dtype_name: str, dtype: torch.dtype, kernels: KernelTable) -> torch.dtype:
    """The number format of a `--kv-cache-dtype` setting.

    Args:
        dtype_name, dtype: the `--dtype` setting, and what it was resolved to.

    Raises:
        ConfigError: the format has no such name, or the kernels do not read it.
    """
    if kv_name == "auto":
        return kernels.narrow_kv_dtype or dtype if dtype_name == "auto" else dtype
    if kv_name not in _KV_DTYPES:
        raise ConfigError(f"--kv-cache-dtype must be auto, {', '.join(_KV_DTYPES)}, not {kv_name!r}")
    if _KV_DTYPES[kv_name] not in kernels.kv_dtypes:
        names = [str(known).removeprefix("torch.") for known in kernels.kv_dtypes]
        raise ConfigError(f"--kv-cache-dtype {kv_name}: the kernels here read {', '.join(names)}")
    return _KV_DTYPES[kv_name]


def resolve_matrix_formats(compute: ComputeConfig, kernels: KernelTable) -> MatrixFormats:
    """Which matrices stay as the file has them, and which are rounded: all as under `--dtype auto`.

    Raises:
        ConfigError: they are to be rounded and the kernels do not multiply such matrices.
    """
    if compute.quantization != "none" and not kernels.low_bit_types:
        reason = kernels.describe()[0].reason
        raise ConfigError(f"--quantization {compute.quantization} needs the native CPU kernels: {reason}")
    if compute.dtype != "auto":
        return MatrixFormats()
    return MatrixFormats(kernels.low_bit_types, kernels.narrow_dtypes, compute.quantization)


def resolve_num_threads(num_threads: int | None) -> int:
    """The number of threads of a `--num-threads` setting; by default one per core this process may use.

    Raises:
        ConfigError: less than one.
    """
    if num_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_threads < 1:
        raise ConfigError(f"--num-threads must be at least 1, not {num_threads}")
    return num_threads


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can still be allocated: on a CPU within the machine and this process's cgroup."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free_bytes = _machine_free_bytes()
    limit, used = (_read_int(_CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free_bytes = min(free_bytes, max(0, limit - used + _cgroup_file_cache_bytes()))
    return free_bytes


def _cgroup_file_cache_bytes() -> int:
    """Memory that counts as used by the cgroup but is given back when needed: cached files."""
    try:
        fields = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return 0
    return int(fields.get("active_file", 0)) + int(fields.get("inactive_file", 0))


def _machine_free_bytes() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file outside a cgroup; "max" where there is no limit
        return None


def return_freed_memory() -> None:
    """Give memory that was freed, but kept by the allocator for reuse, back to the operating system.

    Loading frees every matrix once it is packed; with glibc that leaves some 60 MB resident for good.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)
