"""What `octavo bench quality` is asked to compare. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config import KV_DTYPES, parse_tokens, setting
from octavo.errors import ConfigError


def parse_kv_dtypes(text: str) -> tuple[str, ...]:
    """'auto,float32' -> ("auto", "float32").

    Raises:
        ConfigError: a format is unknown or named twice.
    """
    names = tuple(text.split(","))
    if not set(names) <= set(KV_DTYPES) or len(set(names)) < len(names):
        raise ConfigError(f"{text!r} is not a list of different formats out of {', '.join(KV_DTYPES)}")
    return names


@dataclass(frozen=True, kw_only=True)
class QualitySpec:
    """What is read, and with which keys and values."""

    num_tokens: int = setting(
        20_000, "tokens whose probabilities are compared", parse=parse_tokens, metavar="TOKENS"
    )
    window: int = setting(
        512, "tokens that are read at once, each window afresh", parse=parse_tokens, metavar="TOKENS"
    )
    text: str | None = setting(
        None,
        "UTF-8 text to read; default: docstrings of Python's standard library",
        metavar="FILE",
    )
    kv_cache_dtypes: tuple[str, ...] = setting(
        ("auto", "float32"),
        f"formats of keys and values, out of {', '.join(KV_DTYPES)} (default: auto,float32)",
        parse=parse_kv_dtypes,
        metavar="DTYPE,...",
    )

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ConfigError(f"--num-tokens must be at least 1, not {self.num_tokens}")
        if self.window < 2:
            raise ConfigError(f"--window must be at least 2, not {self.window}: the first token is given")
