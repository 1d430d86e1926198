"""Builds GGUF files byte by byte, for tests of what a well-behaved writer would never write."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

STRING, ARRAY, UINT32 = 8, 9, 4


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def text_entry(key: str, value: str | bytes) -> bytes:
    return text(key) + struct.pack("<I", STRING) + text(value)


def number_entry(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", UINT32, value)


def array_entry(key: str, kind: int, count: int, data: bytes) -> bytes:
    return text(key) + struct.pack("<IIQ", ARRAY, kind, count) + data


@dataclass
class RawTensor:
    name: str
    dims: tuple[int, ...] = (4, 2)  # innermost first, as in the file
    type_id: int = 0
    offset: int = 0

    def encode(self) -> bytes:
        dims = struct.pack(f"<I{len(self.dims)}Q", len(self.dims), *self.dims)
        return text(self.name) + dims + struct.pack("<IQ", self.type_id, self.offset)


@dataclass
class RawGguf:
    entries: list[bytes] = field(default_factory=list)
    tensors: list[RawTensor] = field(default_factory=lambda: [RawTensor("a")])
    data: bytes = bytes(32)
    magic: bytes = b"GGUF"
    version: bytes = struct.pack("<I", 3)
    num_tensors: int | None = None
    num_entries: int | None = None
    alignment: int = 32

    def encode(self) -> bytes:
        num_tensors = len(self.tensors) if self.num_tensors is None else self.num_tensors
        num_entries = len(self.entries) if self.num_entries is None else self.num_entries
        header = self.magic + self.version + struct.pack("<QQ", num_tensors, num_entries)
        header += b"".join(self.entries) + b"".join(tensor.encode() for tensor in self.tensors)
        return header + bytes(-len(header) % self.alignment) + self.data
