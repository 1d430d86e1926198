"""Every kernel table that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from octavo.compute import kernels
from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.cpu.build import BuildError, build_library
from octavo.compute.kernels.cpu.library import ISAS, NativeLibraryError, load_library
from octavo.compute.kernels.cpu.sources import LIBRARY_PATH


@pytest.fixture(scope="session")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed native library, or one built now where there is none of these sources."""
    try:
        load_library(LIBRARY_PATH)
    except NativeLibraryError:
        path = tmp_path_factory.mktemp("native") / LIBRARY_PATH.name
        try:
            build_library(path)
        except BuildError as error:
            pytest.skip(f"no native kernels here: {error}")
        return path
    return LIBRARY_PATH


@pytest.fixture(scope="session", params=ISAS)
def native(request: pytest.FixtureRequest, library_path: Path) -> KernelTable:
    """The native table, once for each instruction set that the processor has."""
    try:
        return kernels.native_table(load_library(library_path, isa_name=request.param))
    except NativeLibraryError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def reference_kernels() -> KernelTable:
    return kernels.reference_table("the tests' yardstick")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The reference's many small products only lose time on more; tests of threads ask for theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
