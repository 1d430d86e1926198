"""Safetensors headers: what is damaged is named, and what is whole is let through."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from octavo.checkpoint.safetensors_header import read_safetensors_shapes
from octavo.errors import CheckpointError


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"first": torch.ones(3, 4), "second": torch.zeros(0), "third": torch.ones(2)}, path)
    return path


def rewrite_header(path: Path, **entries: Any) -> None:
    data = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header = json.dumps({**json.loads(data[8 : 8 + header_bytes]), **entries}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + header_bytes :])


def test_a_whole_file_passes(whole: Path) -> None:
    read_safetensors_shapes(whole)


def test_a_file_cut_short_names_the_tensor_that_lost_its_end(whole: Path) -> None:
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor 'third'.*cut short"):
        read_safetensors_shapes(whole)


@pytest.mark.parametrize("num_bytes", [0, 5, 8, 40])
def test_a_file_that_ends_in_its_header(whole: Path, num_bytes: int) -> None:
    whole.write_bytes(whole.read_bytes()[:num_bytes])
    with pytest.raises(CheckpointError, match="cut short"):
        read_safetensors_shapes(whole)


@pytest.mark.parametrize("offsets", [[0, 10**9], [8, 0], [-8, 0], [0], "0", [0.0, 8.0]])
def test_a_tensor_in_no_possible_place_is_named(whole: Path, offsets: object) -> None:
    rewrite_header(whole, first={"dtype": "F32", "shape": [2], "data_offsets": offsets})
    with pytest.raises(CheckpointError, match="tensor 'first'"):
        read_safetensors_shapes(whole)


@pytest.mark.parametrize("header", [b"[]", b"{", b"\xff\xff", b"[" * 100_000])
def test_a_header_that_is_no_object(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="header is not"):
        read_safetensors_shapes(path)
