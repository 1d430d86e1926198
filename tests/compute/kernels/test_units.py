"""Each instruction-set unit beside the generic one, in C++: here, and on arm64 where that can be emulated."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from octavo.compute.kernels.cpu.build import (
    COMPILERS,
    BuildError,
    compile_objects,
    find_compiler,
    run_compiler,
)
from octavo.compute.kernels.cpu.sources import SOURCE_FOLDER

CHECK = Path(__file__).parent / "native" / "unit_check.cpp"
NOT_HERE = 77


def _build_check(folder: Path, compiler: str, machine: str) -> Path:
    program = folder / "unit_check"
    objects = [str(path) for path in compile_objects(folder, compiler, machine)]
    flags = ["-std=c++17", "-O1", "-static", "-pthread", f"-I{SOURCE_FOLDER}", "-Wno-psabi"]
    run_compiler([compiler, *flags, str(CHECK), *objects, "-o", str(program)])
    return program


def _run(command: list[str], unit: str) -> None:
    result = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    if result.returncode == NOT_HERE:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(rf"{unit} beside generic: [1-9]\d+ checks, 0 wrong", result.stdout)


@pytest.fixture(scope="module")
def native_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return _build_check(tmp_path_factory.mktemp("units"), find_compiler(COMPILERS), platform.machine())
    except BuildError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["avx512vnni", "avx512", "avx2", "neon", "generic"])
def test_a_unit_agrees_with_the_generic_one(native_check: Path, unit: str) -> None:
    _run([str(native_check)], unit)


@pytest.mark.slow
def test_arm64_under_emulation(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs qemu-user and g++-aarch64-linux-gnu")
    program = _build_check(tmp_path, find_compiler(["aarch64-linux-gnu-g++"]), "aarch64")
    _run([emulator, str(program)], "neon")
