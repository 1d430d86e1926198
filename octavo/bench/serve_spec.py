"""What `octavo bench serve` and its kin are asked for. Settings only; names are `vllm bench serve`'s."""

from __future__ import annotations

import math
from dataclasses import dataclass

from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServeSpec:
    """The load."""

    num_prompts: int = setting(100, "requests", parse=int, metavar="N")
    random_input_len: int = setting(
        128, "mean prompt length (exponential)", parse=parse_tokens, metavar="TOKENS"
    )
    random_output_len: int = setting(
        128, "mean output length (exponential)", parse=parse_tokens, metavar="TOKENS"
    )
    seed: int = setting(0, "of lengths, tokens and arrivals", parse=int, metavar="N")
    max_concurrency: int | None = setting(
        None, "requests that may be out at once; the others wait in the client", parse=int, metavar="N"
    )
    timeout: float = setting(
        600.0, "seconds after which a request is given up", parse=float, metavar="SECONDS"
    )

    def __post_init__(self) -> None:
        for name in ("num_prompts", "random_input_len", "random_output_len", "max_concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise ConfigError(f"--timeout must be above 0, not {self.timeout:g}")
