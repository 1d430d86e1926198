"""What `octavo bench memory` is asked to compare. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.workload import TRACES
from octavo.config import parse_tokens, setting
from octavo.errors import ConfigError


def parse_numbers(text: str) -> tuple[int, ...]:
    """'8,16' -> (8, 16).

    Raises:
        ConfigError: not a list of whole numbers above 0.
    """
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"{text!r} is not a list of whole numbers above 0; write for example 8,16,32")
    return sizes


@dataclass(frozen=True, kw_only=True)
class MemorySpec:
    """Whose memory, and under which traffic."""

    trace: str = setting("sharegpt", "lengths of prompts and outputs", choices=TRACES)
    num_requests: int = setting(600, "requests, all submitted at once", parse=int, metavar="N")
    seed: int = setting(0, "of the random lengths and tokens", parse=int, metavar="N")
    num_slots: int = setting(
        15_700,
        "KV memory in tokens; the default is the paper's, of OPT-13B on an A100-40GB",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    block_sizes: tuple[int, ...] = setting(
        (8, 16, 32, 64),
        "sizes of paged blocks (default: 8,16,32,64)",
        parse=parse_numbers,
        metavar="N,...",
    )
    max_model_len: int = setting(2048, "longest context", parse=parse_tokens, metavar="TOKENS")
    max_num_seqs: int = setting(1024, "requests that may be in one step", parse=int, metavar="N")
    max_num_batched_tokens: int = setting(
        2048, "tokens that one step may compute", parse=parse_tokens, metavar="TOKENS"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.max_num_seqs <= self.max_num_batched_tokens:
            raise ConfigError(
                f"--max-num-seqs ({self.max_num_seqs}) must be from 1 to --max-num-batched-tokens "
                f"({self.max_num_batched_tokens})"
            )
        if self.num_slots < self.max_model_len:
            raise ConfigError(
                f"--num-slots ({self.num_slots}) must not be below --max-model-len ({self.max_model_len})"
            )
