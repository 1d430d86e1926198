"""Where the native library's sources and output lie, and the hash that ties the two together."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE_FOLDER = FOLDER / "src"
LIBRARY_PATH = FOLDER / "liboctavo_cpu.so"


def hash_sources(folder: Path = SOURCE_FOLDER) -> str | None:
    """SHA-256 over the sources, in hex; CMakeLists.txt computes the same. None where there are none.

    The hash of the concatenated hex hashes of the files' contents, in the order of their names.
    """
    paths = sorted(folder.glob("*.cpp")) + sorted(folder.glob("*.h"))
    if not paths:
        return None
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths, key=lambda p: p.name)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
