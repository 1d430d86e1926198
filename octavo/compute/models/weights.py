"""Loads a checkpoint's weights into exactly the parameters that the spec asks for, or not at all.

Names and shapes are all checked against the files' headers before the first weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.checkpoint.source import SourceKind
from octavo.compute.models.gguf_reader import GgufReader
from octavo.compute.models.matrix_formats import MatrixFormats
from octavo.compute.models.safetensors_reader import SafetensorsReader
from octavo.compute.quantization.matrix import QuantizedMatrix, StoredWeight
from octavo.compute.quantization.rounding import BLOCK_SIZE, round_matrix
from octavo.errors import ConfigError, ModelLoadError
from octavo.families import ModelDescription, TensorSource
from octavo.families.stored_tensors import StoredTensor, match_stored_tensors

_CONVERT_ALL = MatrixFormats()
# Values that are unpacked at a time: enough to make each call worth it, few enough to stay in cache.
_CHUNK_VALUES = 1 << 18


class TensorReader(Protocol):
    """What a checkpoint format must offer."""

    def stored_shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    def path_of(self, name: str) -> Path: ...
    def check_readable(self, name: str) -> None: ...
    def read_rows(self, name: str, start: int, stop: int) -> Tensor: ...
    def plain_dtype(self, name: str) -> torch.dtype | None: ...
    def packed_type(self, name: str) -> GgmlType | None: ...
    def read_packed_rows(self, name: str, start: int, stop: int) -> Tensor: ...
    def release(self, name: str) -> None: ...
    def close(self) -> None: ...


def load_weights(
    description: ModelDescription,
    *,
    dtype: torch.dtype,
    device: torch.device,
    formats: MatrixFormats = _CONVERT_ALL,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, StoredWeight]:
    """Every parameter of `description.spec`, by name, contiguous, on `device`.

    Args:
        dtype: what parameters are converted to, whatever the checkpoint stores, unless `formats` says else.
        formats: which matrices stay as they are stored, and which are rounded; none by default.
        on_progress: called with (values loaded, values in all) after each parameter.

    Raises:
        CheckpointError: a file is damaged, or a tensor is missing, unexpected or of the wrong shape.
        ConfigError: the matrices cannot be rounded as `formats` asks.
        UnsupportedModelError: a tensor's number format is not read.
        ModelLoadError: the weights do not fit in memory.
    """
    path = description.source.path
    reader = _open_reader(description)
    try:
        shapes = description.spec.parameter_shapes()
        stored_names = _match_names(description, reader)
        for name in stored_names.values():
            reader.check_readable(name)
        kept_formats = _choose_formats(description, stored_names, reader, formats, dtype)
        num_loaded, num_values = 0, sum(math.prod(shape) for shape in shapes.values())
        weights: dict[str, StoredWeight] = {}
        with _one_thread():
            for name, shape in shapes.items():
                source, stored_name = description.weight_map[name], stored_names[name]
                kept_format = kept_formats[name]
                weight: StoredWeight
                if isinstance(kept_format, GgmlType) and reader.packed_type(stored_name) is kept_format:
                    weight = _read_packed(shape, source, stored_name, kept_format, reader)
                elif isinstance(kept_format, GgmlType):
                    plain = _allocate(shape, dtype, device, path)
                    _read_into(plain, source, stored_name, reader)
                    rounded = round_matrix(plain, kept_format)
                    weight = plain if rounded is None else rounded
                else:
                    weight = _allocate(shape, kept_format, device, path)
                    _read_into(weight, source, stored_name, reader)
                reader.release(stored_name)
                weights[name] = weight
                num_loaded += weight.numel()
                if on_progress is not None:
                    on_progress(num_loaded, num_values)
        return weights
    finally:
        reader.close()


def count_weight_bytes(
    description: ModelDescription, dtype: torch.dtype, formats: MatrixFormats = _CONVERT_ALL
) -> int:
    """Bytes of the weights that `load_weights` would load, told from the files' headers.

    Raises:
        CheckpointError: a file is damaged, or a tensor is missing, unexpected or of the wrong shape.
        ConfigError: the matrices cannot be rounded as `formats` asks.
    """
    reader = _open_reader(description)
    try:
        stored_names = _match_names(description, reader)
        kept_formats = _choose_formats(description, stored_names, reader, formats, dtype)
        num_bytes = 0
        for name, shape in description.spec.parameter_shapes().items():
            kept, num_values = kept_formats[name], math.prod(shape)
            if isinstance(kept, GgmlType):
                num_bytes += num_values // kept.block_size * kept.block_bytes
            else:
                num_bytes += num_values * kept.itemsize
        return num_bytes
    finally:
        reader.close()


def _open_reader(description: ModelDescription) -> TensorReader:
    path = description.source.path
    return GgufReader(path) if description.source.kind is SourceKind.GGUF else SafetensorsReader(path)


def _match_names(description: ModelDescription, reader: TensorReader) -> dict[str, str]:
    """Parameter -> the stored tensor's name, with all shapes checked."""
    stored = {
        name: StoredTensor(shape, reader.path_of(name)) for name, shape in reader.stored_shapes().items()
    }
    return match_stored_tensors(
        description.spec,
        description.weight_map,
        stored,
        ignored_tensors=description.ignored_tensors,
        family=description.family,
        path=description.source.path,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Unpacking is thousands of short operations; torch's threads would mostly wait for one another."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, path: Path) -> Tensor:
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError as error:  # includes torch.OutOfMemoryError
        reason = str(error).strip().splitlines()[0]
        raise ModelLoadError(f"{path}: the weights do not fit in the memory of {device}: {reason}") from None


def _choose_formats(
    description: ModelDescription,
    stored_names: dict[str, str],
    reader: TensorReader,
    formats: MatrixFormats,
    dtype: torch.dtype,
) -> dict[str, GgmlType | torch.dtype]:
    """Parameter -> the format in which it will be held: only factors of products have others than `dtype`."""
    if formats.quantization != "none":
        _check_roundable(description, stored_names, reader, formats.quantization)
    kept: dict[str, GgmlType | torch.dtype] = {}
    for name, shape in description.spec.parameter_shapes().items():
        kept[name] = dtype
        if len(shape) != 2 or name == "positions.weight":
            continue
        packed_type, plain_dtype = (
            reader.packed_type(stored_names[name]),
            reader.plain_dtype(stored_names[name]),
        )
        rounded_type = formats.rounded_type(name, shape[1])
        if rounded_type is not None:
            kept[name] = rounded_type
        elif packed_type in formats.packed and not description.weight_map[name].is_transposed:
            kept[name] = packed_type
        elif plain_dtype in formats.plain:
            kept[name] = plain_dtype
    return kept


def _check_roundable(
    description: ModelDescription, stored_names: dict[str, str], reader: TensorReader, quantization: str
) -> None:
    path = description.source.path
    stored_types = {reader.packed_type(stored_name) for stored_name in stored_names.values()} - {None}
    if stored_types:
        names = ", ".join(sorted(stored.name for stored in stored_types if stored is not None))
        raise ConfigError(f"--quantization {quantization}: {path} holds rounded matrices already ({names})")
    shapes = description.spec.parameter_shapes().values()
    if not any(len(shape) == 2 and shape[1] % BLOCK_SIZE == 0 for shape in shapes):
        raise ConfigError(
            f"--quantization {quantization}: no matrix of {path} has rows of a multiple of {BLOCK_SIZE}"
        )


def _read_packed(
    shape: tuple[int, ...], source: TensorSource, stored_name: str, ggml_type: GgmlType, reader: TensorReader
) -> QuantizedMatrix:
    start, stop = (0, shape[0]) if source.rows is None else (source.rows.start, source.rows.stop)
    rows = reader.read_packed_rows(stored_name, start, stop)
    if source.interleaved_heads is not None:
        rows = _separate_halves(rows, shape[0] // source.interleaved_heads)
    return QuantizedMatrix(rows.clone(), ggml_type)


def _read_into(weight: Tensor, source: TensorSource, stored_name: str, reader: TensorReader) -> None:
    start, stop = (0, weight.shape[0]) if source.rows is None else (source.rows.start, source.rows.stop)
    if source.is_transposed:
        # Our rows are its columns; such matrices are small enough to be read in one piece.
        num_stored_rows = reader.stored_shapes()[stored_name][0]
        weight.copy_(reader.read_rows(stored_name, 0, num_stored_rows).T[start:stop])
        return
    rows_per_head = None
    if source.interleaved_heads is not None:
        rows_per_head = weight.shape[0] // source.interleaved_heads
    for first, last in _row_chunks(weight, rows_per_head or 1):
        rows = reader.read_rows(stored_name, start + first, start + last)
        if rows_per_head is not None:
            rows = _separate_halves(rows, rows_per_head)
        weight[first:last].copy_(rows)


def _row_chunks(weight: Tensor, multiple: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows, each a multiple of `multiple` long, of about _CHUNK_VALUES values."""
    num_rows = weight.shape[0]
    row_size = weight.numel() // num_rows
    step = max(1, _CHUNK_VALUES // (row_size * multiple)) * multiple
    for first in range(0, num_rows, step):
        yield first, min(first + step, num_rows)


def _separate_halves(rows: Tensor, rows_per_head: int) -> Tensor:
    """Rows (0, half, 1, half + 1, ...) of each head -> (0, 1, ..., half, half + 1, ...)."""
    pairs = rows.view(-1, rows_per_head // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)
