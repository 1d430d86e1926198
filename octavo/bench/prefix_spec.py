"""What `octavo bench prefix` runs. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.memory_spec import parse_numbers
from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PrefixSpec:
    """The requests."""

    prefixes: tuple[int, ...] = setting(
        (80, 341),
        "tokens that all prompts begin with, one case each (default: 80,341, the paper's)",
        parse=parse_numbers,
        metavar="TOKENS,...",
    )
    num_requests: int = setting(24, "requests of a run, all submitted at once", parse=int, metavar="N")
    mean_input: int = setting(
        32, "mean tokens of a prompt after the prefix (exponential)", parse=parse_tokens, metavar="TOKENS"
    )
    mean_output: int = setting(32, "mean output length (exponential)", parse=parse_tokens, metavar="TOKENS")
    repeats: int = setting(5, "pairs of runs of each case, after one that warms up", parse=int, metavar="N")
    seed: int = setting(0, "of the random lengths and tokens", parse=int, metavar="N")

    def __post_init__(self) -> None:
        for name in ("num_requests", "mean_input", "mean_output", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
