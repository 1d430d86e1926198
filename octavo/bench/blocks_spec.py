"""What `octavo bench blocks` runs. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError

COLOUR_BY = ("state", "request")


@dataclass(frozen=True, kw_only=True)
class BlocksSpec:
    """The workload."""

    num_requests: int = setting(24, "requests; every fourth is answered twice", parse=int, metavar="N")
    seed: int = setting(0, "of the random lengths, tokens and arrivals", parse=int, metavar="N")
    prefix: int = setting(72, "tokens that all prompts begin with", parse=parse_tokens, metavar="TOKENS")
    mean_prompt: int = setting(
        48, "mean length of the rest of a prompt (exponential)", parse=parse_tokens, metavar="TOKENS"
    )
    mean_output: int = setting(48, "mean output length (exponential)", parse=parse_tokens, metavar="TOKENS")
    mean_gap: float = setting(
        6.0, "mean steps between two arrivals (exponential)", parse=float, metavar="STEPS"
    )
    every: int = setting(1, "steps between two snapshots", parse=int, metavar="N")

    def __post_init__(self) -> None:
        for name in ("num_requests", "mean_prompt", "mean_output", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.mean_gap < 1e6:
            raise ConfigError(f"--mean-gap must be above 0 and below a million, not {self.mean_gap:g}")
