"""results.json files read back: of one experiment's folder, or of a folder of such folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from octavo.errors import ConfigError

SCHEMA_VERSION = 1
_NEEDED = ("experiment", "title", "panels", "measures", "metrics", "targets", "machine")


def read_documents(folder: Path) -> list[dict[str, Any]]:
    """The folder's own results, or those of the folders in it, by name.

    Raises:
        ConfigError: there are none, or one cannot be read.
    """
    paths = [folder / "results.json"]
    if not paths[0].exists():
        paths = sorted(folder.glob("*/results.json"))
    if not paths:
        raise ConfigError(f"{folder}: there is no results.json in it, nor in a folder of it")
    return [_read(path) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict) or any(name not in document for name in _NEEDED):
        raise ConfigError(f"{path}: it is no result of `octavo bench run`")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(f"{path}: it has another schema, {document.get('schema_version')!r}; run it again")
    return document
