"""What `octavo bench sharing` runs. Settings only, so that reading a command line is quick."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.memory_spec import parse_numbers
from octavo.config import setting
from octavo.errors import ConfigError

METHODS = ("parallel", "beam")


def parse_data_sets(text: str) -> tuple[str, ...]:
    """'alpaca,sharegpt' -> ("alpaca", "sharegpt").

    Raises:
        ConfigError: one of them is unknown.
    """
    names = tuple(part.strip() for part in text.split(","))
    if not set(names) <= {"alpaca", "sharegpt"}:
        raise ConfigError(f"{text!r} is not a list of alpaca and sharegpt")
    return names


@dataclass(frozen=True, kw_only=True)
class SharingSpec:
    """The requests."""

    data_sets: tuple[str, ...] = setting(
        ("alpaca", "sharegpt"),
        "whose mean lengths requests have (default: alpaca,sharegpt)",
        parse=parse_data_sets,
        metavar="NAME,...",
    )
    widths: tuple[int, ...] = setting(
        (2, 4, 6), "outputs or beams of a request (default: 2,4,6)", parse=parse_numbers, metavar="N,..."
    )
    num_requests: int = setting(12, "requests of each kind", parse=int, metavar="N")
    seed: int = setting(0, "of the random lengths and prompts", parse=int, metavar="N")
    step_width: int = setting(4, "beams, and sequences, whose steps are compared", parse=int, metavar="N")
    num_step_pairs: int = setting(96, "pairs of such steps", parse=int, metavar="N")

    def __post_init__(self) -> None:
        if self.num_requests < 1 or self.num_step_pairs < 2:
            raise ConfigError("--num-requests must be at least 1 and --num-step-pairs at least 2")
        if min((*self.widths, self.step_width)) < 2:
            raise ConfigError("--widths and --step-width must be at least 2: one sequence shares nothing")
