"""Reads a safetensors file's header and holds it against the file's size: quickly, without any library.

The library that reads the tensors finds the same faults, but later and without a tensor's name.
Format: https://github.com/huggingface/safetensors (8 bytes of length, a JSON header, the data).
"""

from __future__ import annotations

import json
from pathlib import Path

from octavo.errors import CheckpointError

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def read_safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape, once it is sure that all of them lie inside the file.

    Raises:
        CheckpointError: the file is damaged or cut short; names the tensor at fault.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if num_bytes < _LENGTH_BYTES or header_bytes > min(num_bytes - _LENGTH_BYTES, _MAX_HEADER_BYTES):
                raise CheckpointError(path, "the file ends inside the header; it is damaged or cut short")
            header = json.loads(file.read(header_bytes))
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(path, "not an intact safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise CheckpointError(path, "not an intact safetensors file: its header is not a JSON object")
    num_data_bytes = num_bytes - _LENGTH_BYTES - header_bytes
    return {
        name: _read_entry(path, name, entry, num_data_bytes)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _read_entry(path: Path, name: str, entry: object, num_data_bytes: int) -> tuple[int, ...]:
    match entry:
        case {"data_offsets": [int(start), int(end)], "shape": [*extents]} if 0 <= start <= end:
            if end > num_data_bytes:
                raise CheckpointError(
                    path,
                    f"its data ends at byte {end}, but the file has only {num_data_bytes}; "
                    "it may be cut short",
                    tensor=name,
                )
            if all(type(extent) is int and extent >= 0 for extent in extents):
                return tuple(extents)
            raise CheckpointError(path, f"the header gives it the shape {extents!r}", tensor=name)
        case _:
            raise CheckpointError(path, "the header does not say where its data is", tensor=name)
