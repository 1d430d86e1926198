"""Reads tensors from safetensors files, single or sharded, a few rows at a time.

The one place that uses the safetensors library, which checks each file's header and size on opening it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.checkpoint.safetensors_files import find_safetensors
from octavo.errors import CheckpointError, UnsupportedModelError

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class SafetensorsReader:
    """The tensors of a model folder.

    Raises (on opening):
        CheckpointError: a file is missing, damaged or cut short, or lacks a tensor that the index lists.
    """

    def __init__(self, folder: Path) -> None:
        files = find_safetensors(folder)
        self._open_files: dict[Path, Any] = {}  # the library has no types for what it opens
        self._paths: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, str] = {}
        for path in files.paths:
            self._read_header(path)
        for name, path in (files.path_by_tensor or {}).items():
            if self._paths.get(name) != path:
                raise CheckpointError(path, "is not in the shard that the index names", tensor=name)

    def stored_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def path_of(self, name: str) -> Path:
        return self._paths[name]

    def check_readable(self, name: str) -> None:
        """Raise UnsupportedModelError unless the tensor's number format is read."""
        if self._dtypes[name] not in _DTYPES:
            raise UnsupportedModelError(
                f"{self._paths[name]}: tensor {name!r}: number format {self._dtypes[name]} is not read "
                f"(these are: {', '.join(_DTYPES)})"
            )

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a tensor, in the stored dtype."""
        rows: Tensor = self._open(self._paths[name]).get_slice(name)[start:stop]
        return rows

    def plain_dtype(self, name: str) -> torch.dtype | None:
        """The stored format."""
        return _DTYPES.get(self._dtypes[name])

    def packed_type(self, name: str) -> GgmlType | None:
        """None: the format has no packed blocks."""
        return None

    def read_packed_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Never called: no tensor has a `packed_type`."""
        raise ValueError(f"{name} is not packed")

    def release(self, name: str) -> None:
        """Let go of the memory that reading the tensor took: the pages of its file's mapping."""
        self._open_files.pop(self._paths[name], None)

    def close(self) -> None:
        self._open_files.clear()

    def _read_header(self, path: Path) -> None:
        file = self._open(path)
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            if name in self._paths:
                raise CheckpointError(path, f"is also in {self._paths[name].name}", tensor=name)
            entry = file.get_slice(name)
            self._paths[name] = path
            self._shapes[name] = tuple(entry.get_shape())
            self._dtypes[name] = str(entry.get_dtype())

    def _open(self, path: Path) -> Any:
        if path not in self._open_files:
            try:
                self._open_files[path] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(path, f"not an intact safetensors file: {error}") from None
        return self._open_files[path]
