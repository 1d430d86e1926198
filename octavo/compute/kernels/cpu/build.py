"""Builds the native library with the C++ compiler that is at hand: no CMake, no Python headers.

    python -m octavo.compute.kernels.cpu.build

For a source tree that runs without being installed; installing builds the same through CMakeLists.txt.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from octavo.compute.kernels.cpu.sources import LIBRARY_PATH, SOURCE_FOLDER, hash_sources

COMPILERS = ("c++", "g++", "clang++")
# -march=native never: the library must run on other machines. -psabi only warns of calls between units.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wno-psabi")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
# Architecture -> what to define, and the units of its instruction sets with their flags.
ISA_UNITS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "x86_64": (
        "OCTAVO_X86_UNITS",
        {"isa_avx2": _AVX2, "isa_avx512": _AVX512, "isa_avx512vnni": (*_AVX512, "-mavx512vnni")},
    ),
    "aarch64": ("OCTAVO_NEON_UNIT", {"isa_neon": ("-march=armv8.2-a+dotprod",)}),
}
_ARCHITECTURES = {"AMD64": "x86_64", "arm64": "aarch64"}
_ALL_UNITS = frozenset(name for _, units in ISA_UNITS.values() for name in units)


class BuildError(Exception):
    """The library could not be built; the message says why."""


def build_library(target: Path = LIBRARY_PATH, *, extra_flags: tuple[str, ...] = ()) -> None:
    """Compile the sources for this machine's architecture into `target`, which appears whole or not at all.

    Args:
        extra_flags: for every unit and for linking, after the usual ones.

    Raises:
        BuildError: no compiler, no sources, or the compiler failed.
    """
    compiler = find_compiler(COMPILERS)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        objects = compile_objects(Path(folder), compiler, platform.machine(), extra_flags)
        library = Path(folder, target.name)
        run_compiler([compiler, "-shared", "-pthread", *extra_flags, *map(str, objects), "-o", str(library)])
        library.replace(target)


def find_compiler(names: Sequence[str]) -> str:
    """The path of the first of these commands that is installed.

    Raises:
        BuildError: none is.
    """
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        raise BuildError(f"no C++ compiler found (looked for {', '.join(names)})")
    return path


def compile_objects(
    folder: Path, compiler: str, machine: str, extra_flags: tuple[str, ...] = ()
) -> list[Path]:
    """One object file in `folder` for each source that this architecture has.

    Args:
        machine: as `platform.machine()` names it.

    Raises:
        BuildError: no sources, or the compiler failed.
    """
    source_hash = hash_sources()
    if source_hash is None:
        raise BuildError(f"no sources in {SOURCE_FOLDER}")
    define, units = ISA_UNITS.get(_ARCHITECTURES.get(machine, machine), ("OCTAVO_NO_UNITS", {}))
    defines = [f'-DOCTAVO_SOURCE_HASH="{source_hash}"', f"-D{define}"]
    sources = [
        source
        for source in sorted(SOURCE_FOLDER.glob("*.cpp"))
        if source.stem not in _ALL_UNITS - units.keys()
    ]

    def compile_source(source: Path) -> Path:
        flags = [*FLAGS, *units.get(source.stem, ()), *extra_flags, *defines]
        run_compiler([compiler, *flags, "-c", str(source), "-o", str(folder / f"{source.stem}.o")])
        return folder / f"{source.stem}.o"

    with ThreadPoolExecutor() as pool:
        return list(pool.map(compile_source, sources))


def run_compiler(command: list[str]) -> None:
    """Raises BuildError with what the compiler said, where it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{result.stderr.strip()}")


def main() -> int:
    try:
        build_library()
    except BuildError as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    print(f"octavo: built {LIBRARY_PATH}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
