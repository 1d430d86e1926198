"""What `octavo bench cpu` is asked to measure. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.memory_spec import parse_numbers
from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CpuSpec:
    """What is measured, and how often."""

    repeats: int = setting(3, "measurements of each kind, after one to warm up", parse=int, metavar="N")
    num_requests: int = setting(64, "requests of the mixed work, all at once", parse=int, metavar="N")
    prefill: int = setting(
        512, "tokens of the prompt that is prefilled", parse=parse_tokens, metavar="TOKENS"
    )
    streams: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16, 32, 64),
        "streams that decode at once (default: 1,2,4,8,16,32,64)",
        parse=parse_numbers,
        metavar="N,...",
    )
    context: int = setting(128, "tokens before each stream's first", parse=parse_tokens, metavar="TOKENS")
    num_decoded: int = setting(32, "tokens that each stream decodes", parse=parse_tokens, metavar="TOKENS")
    seed: int = setting(0, "of the random lengths and tokens", parse=int, metavar="N")

    def __post_init__(self) -> None:
        for name in ("repeats", "num_requests", "prefill", "context", "num_decoded"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} must be at least 1, not {getattr(self, name)}")
