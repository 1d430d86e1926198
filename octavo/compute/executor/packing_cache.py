"""Keeps a model's matrices, as they were laid out for the kernels, in a file that the next start maps.

Owns the file's format. A file that is not whole is told in one line and made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels.signatures import LinearWeight, PackedMatrix, PackWeight
from octavo.compute.quantization.matrix import StoredWeight
from octavo.errors import ConfigError

_MAGIC = b"octavo panels 1\n"
_ALIGNMENT = 64  # of each matrix in the file
_HASHED_BYTES = 1 << 16
_DTYPES = {str(dtype): dtype for dtype in (torch.uint8, torch.float32, torch.float16, torch.bfloat16)}

_log = logging.getLogger("octavo.packing")


def cache_key(path: Path, *facts: object) -> str:
    """What a file of panels belongs to, in hex.

    The weights' files count by name, size, time of change and the hash of their first 64 KiB, which holds the
    header or most of it: reading all of them would take as long as packing.

    Args:
        path: a GGUF file, or a folder of safetensors.
        facts: whatever else decides how the matrices are laid out.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        status = file.stat()
        with file.open("rb") as opened:
            start = opened.read(_HASHED_BYTES)
        digest.update(repr((file.name, status.st_size, status.st_mtime_ns, start)).encode())
    return digest.hexdigest()


class PackingCache:
    """Packs as the function that it is given, or takes the same from the file. See signatures.PackWeight.

    Attributes:
        is_hit: the file had the matrices.
    """

    def __init__(self, folder: Path, key: str, pack_weight: PackWeight) -> None:
        """
        Raises:
            ConfigError: the folder cannot be made or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--repack-cache {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--repack-cache {folder}: the folder cannot be written")
        self._path = folder / f"{key}.panels"
        self._pack_weight = pack_weight
        self._made: list[LinearWeight] = []
        self._kept = self._load()
        self.is_hit = self._kept is not None

    def __call__(self, matrices: Sequence[StoredWeight]) -> LinearWeight:
        if self._kept is not None:
            weight = self._kept.pop(0)
            shape = (sum(matrix.shape[0] for matrix in matrices), matrices[0].shape[1])
            if (weight.out_size, weight.in_size) != shape:
                raise ValueError(f"{self._path} has {(weight.out_size, weight.in_size)} where {shape} is due")
            return weight
        weight = self._pack_weight(matrices)
        self._made.append(weight)
        return weight

    def finish(self) -> None:
        """Write what was made, where the file did not have it. A disk that is full is told, and no more."""
        made, self._made = self._made, []
        if self.is_hit:
            return
        unfinished = self._path.with_suffix(f".{os.getpid()}.unfinished")
        try:
            _write(unfinished, made)
            unfinished.replace(self._path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            _log.warning("%s was not written (%s): the next start packs again", self._path, error.strerror)

    def _load(self) -> list[LinearWeight] | None:
        if not self._path.exists():
            return None
        try:
            return _read(self._path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is of no use and is made anew: %s", self._path, error)
            return None


def _write(path: Path, weights: list[LinearWeight]) -> None:
    """Magic, length of the header, header in JSON, then the matrices, each aligned."""
    entries, tensors, num_bytes, checksum = [], [], 0, 0
    for weight in weights:
        parts = []
        for part in weight.parts:
            data = part.data.contiguous()
            padding = -num_bytes % _ALIGNMENT
            type_name = None if part.ggml_type is None else part.ggml_type.name
            parts.append([str(data.dtype), list(data.shape), part.out_size, type_name, num_bytes + padding])
            tensors.append((padding, data))
            num_bytes += padding + data.nbytes
        entries.append([parts, weight.in_size])
    for padding, data in tensors:
        checksum = zlib.crc32(_bytes_of(data), zlib.crc32(bytes(padding), checksum))
    header = json.dumps({"entries": entries, "num_bytes": num_bytes, "crc32": checksum}).encode()
    header += b" " * (-(len(_MAGIC) + 8 + len(header)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
        for padding, data in tensors:
            file.write(bytes(padding))
            file.write(_bytes_of(data))


def _read(path: Path) -> list[LinearWeight]:
    """
    Raises:
        OSError, ValueError, KeyError, TypeError: the file is not one that `_write` left.
    """
    with path.open("rb") as file:
        # Private: nothing is written, and torch asks for memory that could be.
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = len(_MAGIC) + 8
    if memory[: len(_MAGIC)] != _MAGIC:
        raise ValueError("it does not begin like a file of panels")
    header_bytes = int.from_bytes(memory[len(_MAGIC) : start], "little")
    if header_bytes > len(memory):
        raise ValueError("its header is longer than the file")
    header: dict[str, Any] = json.loads(memory[start : start + header_bytes])
    first = start + header_bytes
    if len(memory) != first + header["num_bytes"]:
        raise ValueError(f"it has {len(memory)} bytes instead of {first + header['num_bytes']}")
    if zlib.crc32(memoryview(memory)[first:]) != header["crc32"]:
        raise ValueError("its checksum is wrong")
    return [
        LinearWeight(parts, sum(part.out_size for part in parts), in_size)
        for parts, in_size in (
            (tuple(_map_matrix(memory, first, *part) for part in entry_parts), in_size)
            for entry_parts, in_size in header["entries"]
        )
    ]


def _map_matrix(
    memory: mmap.mmap,
    first: int,
    dtype_name: str,
    shape: list[int],
    out_size: int,
    type_name: str | None,
    offset: int,
) -> PackedMatrix:
    dtype, count = _DTYPES[dtype_name], 1
    for size in shape:
        count *= size
    data = torch.frombuffer(memory, dtype=dtype, count=count, offset=first + offset).view(shape)
    return PackedMatrix(data, out_size, None if type_name is None else GgmlType[type_name])


def _bytes_of(data: Tensor) -> memoryview:
    return data.view(torch.uint8).flatten().numpy().data
