"""Typed reading of a model's settings, from config.json or GGUF metadata, that fails early and by name.

Every complaint names the file and the key. Knows no family and no key of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from octavo.errors import CheckpointError, UnsupportedModelError

Choice = TypeVar("Choice")

# No model has a size above this; keeps a damaged number from turning into endless work.
MAX_SIZE = 1 << 31
_MAX_FLOAT = 1e300


class ConfigReader:
    """Settings under one prefix of one file; null counts as absent."""

    def __init__(self, path: Path, values: Mapping[str, object], *, prefix: str = "") -> None:
        self.path = path
        self._values, self._prefix = values, prefix

    def has(self, key: str) -> bool:
        return self._find(key) is not None

    def states(self, key: str) -> bool:
        """Whether the key is there at all, be it null."""
        return f"{self._prefix}{key}" in self._values

    def require_int(self, key: str, *, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number from `low` to `high`, which must be there."""
        value = self.find_int(key, low=low, high=high)
        if value is None:
            raise self.invalid(key, "is missing")
        return value

    def find_int(self, key: str, *, low: int = 1, high: int = MAX_SIZE) -> int | None:
        """A whole number from `low` to `high`, or None where there is none."""
        value = self._find(key)
        if value is None:
            return None
        if isinstance(value, Sequence) and not isinstance(value, str):
            raise self.unsupported(f"a different {self._prefix}{key} in each layer")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.invalid(key, f"is {_shown(value)}, not a whole number from {low} to {high}")
        return value

    def require_float(self, key: str) -> float:
        """A finite number above zero, which must be there."""
        value = self.find_float(key)
        if value is None:
            raise self.invalid(key, "is missing")
        return value

    def find_float(self, key: str, *, allows_zero: bool = False) -> float | None:
        """A finite number above zero (or zero, if that is allowed), or None where there is none."""
        value = self._find(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.invalid(key, f"is {_shown(value)}, not a number")
        # Comparing, unlike math.isfinite, also takes a whole number too large for a float.
        if not (0 < value < _MAX_FLOAT or (allows_zero and value == 0)):
            raise self.invalid(key, f"is {_shown(value)}, not a finite number above zero")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._find(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.invalid(key, f"is {_shown(value)}, not true or false")
        return value

    def find_text(self, key: str) -> str | None:
        value = self._find(key)
        if value is not None and not isinstance(value, str):
            raise self.invalid(key, f"is {_shown(value)}, not text")
        return value

    def choose(self, key: str, choices: Mapping[str, Choice], *, default: str) -> Choice:
        """What `choices` gives for the text at `key`.

        Raises:
            UnsupportedModelError: the text is none of the choices.
        """
        text = self.find_text(key) or default
        if text not in choices:
            raise self.unsupported(f"{self._prefix}{key} {text!r} (known: {', '.join(sorted(choices))})")
        return choices[text]

    def find_texts(self, key: str) -> list[str] | None:
        value = self._find(key)
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.invalid(key, f"is {_shown(value)}, not a list of texts")
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) != len(value):
            raise self.invalid(key, "has entries that are not text")
        return texts

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them; none where the key is absent."""
        value = self._find(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        for item in values:
            if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < MAX_SIZE:
                raise self.invalid(key, f"is {_shown(value)}, not a token id or a list of token ids")
        return tuple(dict.fromkeys(values))

    def section(self, key: str) -> ConfigReader | None:
        """The object at `key`, whose complaints name it as `key.inner`."""
        value = self._find(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.invalid(key, f"is {_shown(value)}, not an object")
        return ConfigReader(
            self.path, _prefixed(value, f"{self._prefix}{key}."), prefix=f"{self._prefix}{key}."
        )

    def refuse(self, *keys: str) -> None:
        """Raise UnsupportedModelError if any of these settings is there and not false, zero or empty."""
        for key in keys:
            if self._find(key):
                raise self.unsupported(f"{self._prefix}{key}")

    def invalid(self, key: str, reason: str) -> CheckpointError:
        return CheckpointError(self.path, f"{self._prefix}{key} {reason}")

    def unsupported(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.path}: Octavo does not run models with {what}")

    def _find(self, key: str) -> object:
        return self._values.get(f"{self._prefix}{key}")


def _prefixed(values: Mapping[str, object], prefix: str) -> dict[str, object]:
    return {f"{prefix}{key}": value for key, value in values.items()}


def _shown(value: object) -> str:
    """The value as it may stand in a one-line message."""
    if isinstance(value, int) and not -(10**18) < value < 10**18:
        return "a number of absurd size"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
