"""What `octavo bench step` is asked to look at. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.memory_spec import parse_numbers
from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """Which steps are looked at, and how often each is run."""

    streams: tuple[int, ...] = setting(
        (1, 8, 64),
        "sequences that decode in a step, a step for each number (default: 1,8,64)",
        parse=parse_numbers,
        metavar="N,...",
    )
    context: int = setting(128, "tokens of each of these, the new one included", parse=parse_tokens)
    prefill: int = setting(512, "tokens of the prompt that one more step prefills", parse=parse_tokens)
    repeats: int = setting(20, "runs of each step", parse=int, metavar="N")

    def __post_init__(self) -> None:
        for name in ("context", "prefill", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, not {getattr(self, name)}")
