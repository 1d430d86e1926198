"""The model under test as a Hugging Face folder, for peers that read no GGUF: written once and kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from octavo.bench.targets.target import TargetError
from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.config import cache_folder


def exported_folder(source: ModelSource, *, dtype: str) -> Path:
    """A folder with the model's weights in `dtype`; the model's own where it is a folder.

    Written by a process of its own, so that no tensor library is loaded here.

    Raises:
        TargetError: it cannot be written.
    """
    if source.kind is not SourceKind.GGUF:
        return source.path
    status = source.path.stat()
    key = hashlib.sha256(f"{source.path}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_folder() / "exports" / f"{source.path.stem}-{dtype}-{key}"
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    except OSError as error:
        raise TargetError(f"{folder.parent}: cannot be written: {error.strerror or error}") from None
    command = [sys.executable, "-m", "octavo.cli.main", "bench", "export-weights", str(source.path)]
    command += ["--folder", str(unfinished), "--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise TargetError(f"{source.path} cannot be exported: {reason[-1]}")
    unfinished.rename(folder)
    return folder
