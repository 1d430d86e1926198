"""Reads GGUF files (versions 2 and 3): metadata, the tensor table, and views of the tensors' bytes.

The file is mapped, never read whole. Every count, length and offset in it is checked against the file's
size before it is used, so that a damaged or hostile file gives one CheckpointError and nothing else.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import MappingProxyType, TracebackType
from typing import overload

from octavo.checkpoint.ggml_type import TYPES_BY_ID, UNREAD_TYPE_NAMES, GgmlType
from octavo.errors import CheckpointError, UnsupportedModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 16
_MAX_DIMS = 4
_MAX_NAME_BYTES = 1 << 10
_MAX_ARRAY_ITEMS = 1 << 24  # sixty times the largest vocabulary; keeps a hostile count from costing seconds

_MIN_ENTRY_BYTES = 13  # an empty key, its type, a one-byte value
_MIN_TENSOR_BYTES = 24  # an empty name, no dims, type and offset

_U32 = Struct("<I")
_U64 = Struct("<Q")
_HEADER_COUNTS = Struct("<QQ")

# Metadata value types by id: the one-value layout, and array.array's letter for many of them.
_SCALARS: dict[int, tuple[Struct, str]] = {
    0: (Struct("<B"), "B"),
    1: (Struct("<b"), "b"),
    2: (Struct("<H"), "H"),
    3: (Struct("<h"), "h"),
    4: (Struct("<I"), "I"),
    5: (Struct("<i"), "i"),
    6: (Struct("<f"), "f"),
    7: (Struct("<?"), "B"),
    10: (Struct("<Q"), "Q"),
    11: (Struct("<q"), "q"),
    12: (Struct("<d"), "d"),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies in the file.

    Attributes:
        shape: outermost dim first, as torch counts them (the file has them the other way round).
        offset: bytes from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    num_bytes: int


class GgufStrings(Sequence[str]):
    """An array of strings from the metadata, decoded when first looked at (vocabularies are large)."""

    def __init__(self, path: Path, key: str, data: bytes, count: int) -> None:
        self._path, self._key = path, key
        self._data, self._count = data, count
        self._strings: list[str] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._decoded()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def _decoded(self) -> list[str]:
        if self._strings is None:
            data, position, strings = self._data, 0, []
            try:
                for _ in range(self._count):
                    start = position + 8
                    position = start + _U64.unpack_from(data, position)[0]
                    strings.append(data[start:position].decode())
            except UnicodeDecodeError:
                reason = f"string {len(strings)} of the array {self._key!r} is not UTF-8"
                raise CheckpointError(self._path, reason) from None
            self._strings, self._data = strings, b""
        return self._strings


class GgufFile:
    """An open GGUF file. Close it, or use it as a context manager.

    Attributes:
        path: the file.
        metadata: key -> bool, int, float, str, array of numbers, list of bool, or GgufStrings.
        tensors: name -> GgufTensor, in the order of the file.

    Raises (on opening):
        CheckpointError: the file cannot be read, or breaks the format anywhere in its header.
        UnsupportedModelError: it is intact, but of a version, split or number format that is not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = _map_file(path)
        try:
            header = _HeaderParser(path, self._map)
            self.metadata: Mapping[str, object] = MappingProxyType(header.metadata)
            self.tensors: Mapping[str, GgufTensor] = MappingProxyType(header.tensors)
        except BaseException:
            self._map.close()
            raise

    def tensor_bytes(self, tensor: GgufTensor, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of a tensor: a view of the mapping, to be dropped before close()."""
        return memoryview(self._map)[tensor.offset + start : tensor.offset + stop]

    def release(self, tensor: GgufTensor) -> None:
        """Let go of the memory that reading the tensor took; its bytes may still be read again."""
        first_page = tensor.offset - tensor.offset % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED"):
            length = tensor.offset + tensor.num_bytes - first_page
            self._map.madvise(mmap.MADV_DONTNEED, first_page, length)

    def close(self) -> None:
        self._map.close()

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise CheckpointError(path, "not a GGUF file (it does not begin with 'GGUF')")
            # A private mapping: torch wants writable memory, and nothing is ever written to it.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read: {error}") from None


class _HeaderParser:
    """One pass over the header; leaves `metadata` and `tensors`."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._position, self._end = len(_MAGIC), len(data)
        self._where = "the header"
        self.metadata: dict[str, object] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._read_version()
        num_tensors, num_entries = self._read(_HEADER_COUNTS)
        if num_entries > self._end // _MIN_ENTRY_BYTES or num_tensors > self._end // _MIN_TENSOR_BYTES:
            raise self._error(
                f"claims {num_tensors} tensors and {num_entries} entries: more than it can hold"
            )
        for _ in range(num_entries):
            self._read_entry()
        alignment = self._alignment()
        self._refuse_split_files()
        table = [self._read_tensor() for _ in range(num_tensors)]
        self._place_tensors(table, alignment)

    def _read_version(self) -> None:
        (version,) = self._read(_U32)
        if version & 0xFFFF == 0 and version:
            raise UnsupportedModelError(f"{self._path}: a big-endian GGUF file; convert it to little-endian")
        if version not in _VERSIONS:
            raise UnsupportedModelError(f"{self._path}: GGUF version {version} is not read (2 and 3 are)")

    def _read_entry(self) -> None:
        self._where = f"metadata entry {len(self.metadata)}"
        key = self._read_string(max_bytes=_MAX_NAME_BYTES)
        self._where = f"the metadata entry {key!r}"
        if not key or key in self.metadata:
            raise self._error(f"{self._where} is {'there twice' if key else 'without a name'}")
        (kind,) = self._read(_U32)
        if kind == _ARRAY:
            self.metadata[key] = self._read_array(key)
        elif kind == _STRING:
            self.metadata[key] = self._read_string(max_bytes=self._end)
        else:
            self.metadata[key] = self._read(self._scalar(kind)[0])[0]

    def _read_array(self, key: str) -> object:
        (kind,) = self._read(_U32)
        (count,) = self._read(_U64)
        if count > _MAX_ARRAY_ITEMS:
            raise self._error(f"{self._where} claims {count} items")
        if kind == _STRING:
            return self._read_strings(key, count)
        if kind == _ARRAY:
            raise self._error(f"{self._where} is an array of arrays, which no model needs")
        layout, letter = self._scalar(kind)
        data = self._take(count * layout.size)
        if kind == _BOOL:
            return [byte != 0 for byte in data]
        numbers = array(letter, data)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def _read_strings(self, key: str, count: int) -> GgufStrings:
        data, position, end = self._data, self._position, self._end
        unpack_from = _U64.unpack_from  # this loop runs 100,000 times at each start
        last_start = end - 8
        for _ in range(count):
            if position > last_start:
                raise self._ends_early()
            position += 8 + unpack_from(data, position)[0]
        if position > end:
            raise self._ends_early()
        return GgufStrings(self._path, key, self._take(position - self._position), count)

    def _alignment(self) -> int:
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= _MAX_ALIGNMENT:
            raise self._error(f"general.alignment is {alignment!r}, not a number from 1 to {_MAX_ALIGNMENT}")
        if alignment & (alignment - 1):
            raise self._error(f"general.alignment is {alignment}, not a power of two")
        return alignment

    def _refuse_split_files(self) -> None:
        num_parts = self.metadata.get("split.count", 0)
        if isinstance(num_parts, int) and num_parts > 1:
            raise UnsupportedModelError(
                f"{self._path}: one of {num_parts} parts of a split GGUF; "
                "merge them with llama-gguf-split --merge"
            )

    def _read_tensor(self) -> GgufTensor:
        """One row of the tensor table; its offset still counts from the start of the data."""
        self._where = "the tensor table"
        name = self._read_string(max_bytes=_MAX_NAME_BYTES)
        self._where = f"the table's row for tensor {name!r}"
        (num_dims,) = self._read(_U32)
        if not name or not 1 <= num_dims <= _MAX_DIMS:
            raise self._error(f"has {num_dims} dims, not 1 to {_MAX_DIMS}", tensor=name)
        shape = tuple(self._read(_U64)[0] for _ in range(num_dims))[::-1]
        (type_id,) = self._read(_U32)
        (offset,) = self._read(_U64)
        ggml_type = self._tensor_type(name, type_id)
        num_values = 1
        for extent in shape:
            num_values *= extent
        if num_values == 0:
            raise self._error(f"has an empty dim in its shape {list(shape)}", tensor=name)
        if shape[-1] % ggml_type.block_size:
            blocks = f"blocks of {ggml_type.block_size} that {ggml_type.name} has"
            raise self._error(f"rows of {shape[-1]} values do not divide into the {blocks}", tensor=name)
        num_bytes = num_values // ggml_type.block_size * ggml_type.block_bytes
        return GgufTensor(name, shape, ggml_type, offset, num_bytes)

    def _tensor_type(self, name: str, type_id: int) -> GgmlType:
        if type_id in TYPES_BY_ID:
            return TYPES_BY_ID[type_id]
        if type_id in UNREAD_TYPE_NAMES:
            known = ", ".join(ggml_type.name for ggml_type in GgmlType)
            raise UnsupportedModelError(
                f"{self._path}: tensor {name!r}: format {UNREAD_TYPE_NAMES[type_id]} is not read "
                f"(these are: {known})"
            )
        raise self._error(f"unknown number format {type_id}", tensor=name)

    def _place_tensors(self, table: list[GgufTensor], alignment: int) -> None:
        data_start = -(-self._position // alignment) * alignment
        for row in table:
            if row.name in self.tensors:
                raise self._error("is in the table twice", tensor=row.name)
            if row.offset % alignment:
                reason = f"its offset {row.offset} is not a multiple of {alignment}"
                raise self._error(reason, tensor=row.name)
            stop = data_start + row.offset + row.num_bytes
            if stop > self._end:
                reason = f"ends at byte {stop}, but the file has only {self._end}; it may be cut short"
                raise self._error(reason, tensor=row.name)
            placed = GgufTensor(row.name, row.shape, row.type, data_start + row.offset, row.num_bytes)
            self.tensors[row.name] = placed
        previous: GgufTensor | None = None
        for tensor in sorted(self.tensors.values(), key=lambda tensor: tensor.offset):
            if previous is not None and tensor.offset < previous.offset + previous.num_bytes:
                raise self._error(f"overlaps tensor {previous.name!r}", tensor=tensor.name)
            previous = tensor

    def _scalar(self, kind: int) -> tuple[Struct, str]:
        if kind not in _SCALARS:
            raise self._error(f"{self._where} has the unknown type {kind}")
        return _SCALARS[kind]

    def _read(self, layout: Struct) -> tuple[int, ...]:
        """The next value or values; whole numbers, though an entry may also be a float or a bool."""
        return layout.unpack(self._take(layout.size))

    def _read_string(self, *, max_bytes: int) -> str:
        (length,) = self._read(_U64)
        if max_bytes < length <= self._end:
            raise self._error(f"{self._where} has a name of {length} bytes")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self._error(f"{self._where} has text that is not UTF-8") from None

    def _take(self, num_bytes: int) -> bytes:
        stop = self._position + num_bytes
        if stop > self._end:
            raise self._ends_early()
        taken = self._data[self._position : stop]
        self._position = stop
        return taken

    def _ends_early(self) -> CheckpointError:
        return self._error(f"the file ends inside {self._where}; it is damaged or cut short")

    def _error(self, reason: str, *, tensor: str | None = None) -> CheckpointError:
        return CheckpointError(self._path, reason, tensor=tensor)
