"""Which kernels are chosen, and that the choice is told truly."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from octavo.compute import kernels
from octavo.compute.kernels.cpu.build import BuildError, build_library
from octavo.compute.kernels.cpu.library import NativeLibraryError, load_library
from octavo.compute.kernels.cpu.sources import SOURCE_FOLDER, hash_sources

CPU = torch.device("cpu")


def test_every_operation_is_described_once(library_path: Path) -> None:
    table = kernels.native_table(load_library(library_path))
    choices = table.describe()
    assert [choice.operation for choice in choices] == list(kernels.OPERATIONS)
    for choice in choices:
        function = getattr(table, choice.operation)
        home = (function.func if isinstance(function, partial) else function).__module__
        is_native = home.startswith(kernels.cpu.__name__)
        assert is_native == (choice.implementation != "reference")
        assert choice.implementation in ("reference", table.name)
        assert choice.reason


def test_without_a_library_the_reference_is_taken_and_the_remedy_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernels, "load_library", partial(load_library, tmp_path / "none.so"))
    table = kernels.for_device(CPU)
    assert table.name == "reference"
    assert all("python -m octavo.compute.kernels.cpu.build" in choice.reason for choice in table.describe())


def test_other_formats_and_devices_take_the_reference() -> None:
    assert kernels.for_device(CPU, torch.bfloat16).name == "reference"
    assert kernels.for_device(torch.device("meta")).name == "reference"


def test_a_library_built_from_other_sources_is_noticed(library_path: Path, tmp_path: Path) -> None:
    source_hash = hash_sources()
    assert source_hash is not None
    stale = tmp_path / "stale.so"
    stale.write_bytes(library_path.read_bytes().replace(source_hash.encode(), b"0" * 64))
    with pytest.raises(NativeLibraryError, match="built from other sources"):
        load_library(stale)


@pytest.mark.parametrize("content", [b"", b"no library"])
def test_a_damaged_library_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(content)
    with pytest.raises(NativeLibraryError, match="does not load") as raised:
        load_library(damaged)
    assert "\n" not in str(raised.value)


def test_an_unknown_instruction_set_is_refused(library_path: Path) -> None:
    with pytest.raises(NativeLibraryError, match="no kernels for this processor"):
        load_library(library_path, isa_name="abacus")


def test_the_direct_build_makes_a_library_that_loads(tmp_path: Path, library_path: Path) -> None:
    target = tmp_path / "built.so"
    build_library(target)
    assert load_library(target).isa_name == load_library(library_path).isa_name
    assert [path.name for path in tmp_path.iterdir()] == ["built.so"]


def test_without_a_compiler_the_build_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no C\+\+ compiler found"):
        build_library(tmp_path / "built.so")


def test_the_hash_follows_every_source(tmp_path: Path) -> None:
    for source in SOURCE_FOLDER.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    assert hash_sources(tmp_path) == hash_sources()
    for source in tmp_path.iterdir():
        before = hash_sources(tmp_path)
        source.write_bytes(source.read_bytes() + b"\n")
        assert hash_sources(tmp_path) != before
    assert hash_sources(tmp_path / "none") is None
