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
from pathlib import Path

from octavo.compute.kernels.cpu.sources import LIBRARY_PATH, SOURCE_FOLDER, hash_sources

COMPILERS = ("c++", "g++", "clang++")
# -march=native never: the library must run on other machines. -psabi only warns of calls between units.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wno-psabi")
AVX2_FLAGS = ("-mavx2", "-mfma", "-mf16c")


class BuildError(Exception):
    """The library could not be built; the message says why."""


def build_library(target: Path = LIBRARY_PATH) -> None:
    """Compile the sources for this machine's architecture into `target`, which appears whole or not at all.

    Raises:
        BuildError: no compiler, no sources, or the compiler failed.
    """
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise BuildError(f"no C++ compiler found (looked for {', '.join(COMPILERS)})")
    source_hash = hash_sources()
    if source_hash is None:
        raise BuildError(f"no sources in {SOURCE_FOLDER}")
    has_avx2 = platform.machine() in ("x86_64", "AMD64")
    defines = [f'-DOCTAVO_SOURCE_HASH="{source_hash}"', *(["-DOCTAVO_HAS_AVX2"] if has_avx2 else [])]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        objects = []
        for source in sorted(SOURCE_FOLDER.glob("*.cpp")):
            is_avx2_unit = source.stem == "isa_avx2"
            if is_avx2_unit and not has_avx2:
                continue
            objects.append(f"{folder}/{source.stem}.o")
            unit_flags = AVX2_FLAGS if is_avx2_unit else ()
            _compile([compiler, *FLAGS, *unit_flags, *defines, "-c", str(source), "-o", objects[-1]])
        library = Path(folder, target.name)
        _compile([compiler, "-shared", "-pthread", *objects, "-o", str(library)])
        library.replace(target)


def _compile(command: list[str]) -> None:
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
