"""Reads the JSON files of a checkpoint; any way in which one can be unreadable is one CheckpointError."""

from __future__ import annotations

import json
from pathlib import Path

from octavo.errors import CheckpointError


def read_json_object(path: Path) -> dict[str, object]:
    """The file's one JSON object.

    Raises:
        CheckpointError: there is no such file, it is not JSON, or it holds something else than an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from None
    # Broken text, broken JSON and absurd numbers are ValueErrors; absurd nesting is a RecursionError.
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(path, f"holds a JSON {type(value).__name__} where an object should be")
    return value
