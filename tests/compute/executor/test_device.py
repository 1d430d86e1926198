"""Devices, number formats, threads and free memory, from settings."""

from __future__ import annotations

import os

import psutil
import pytest
import torch

from octavo.compute.executor.device import (
    free_memory_bytes,
    resolve_device,
    resolve_dtype,
    resolve_matrix_formats,
    resolve_num_threads,
)
from octavo.compute.kernels import reference_table
from octavo.config import ComputeConfig
from octavo.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_device_is_the_best_there_is() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


def test_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, cpu or cuda, not 'tpu'"):
        resolve_device("tpu")


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("auto", CPU, torch.float32),
        ("auto", CUDA, torch.bfloat16),
        ("float16", CPU, torch.float16),
        ("float32", CUDA, torch.float32),
    ],
)
def test_dtypes(name: str, device: torch.device, dtype: torch.dtype) -> None:
    assert resolve_dtype(name, device) is dtype


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match="not 'int8'"):
        resolve_dtype("int8", CPU)


def test_rounding_needs_kernels_that_multiply_what_it_makes() -> None:
    kernels = reference_table("torch alone is here")
    assert resolve_matrix_formats(ComputeConfig(), kernels).quantization == "none"
    with pytest.raises(ConfigError, match="--quantization int8 needs the native CPU kernels: torch alone"):
        resolve_matrix_formats(ComputeConfig(quantization="int8"), kernels)


def test_rounding_beside_a_number_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="--quantization has an effect only with --dtype auto, not float32"):
        ComputeConfig(quantization="int4", dtype="float32")


def test_threads() -> None:
    assert resolve_num_threads(None) == len(os.sched_getaffinity(0))
    assert resolve_num_threads(3) == 3


def test_free_memory_is_within_the_machine() -> None:
    free_bytes = free_memory_bytes(CPU)
    assert 2**20 < free_bytes <= psutil.virtual_memory().total
