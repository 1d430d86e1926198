"""How much an experiment does: `smoke` to see that all works, `full` to say something. No tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

SIZES = ("smoke", "ci", "full", "paper")


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """What a size means.

    Attributes:
        num_blocks: blocks that are kept; a verdict takes five.
        num_discarded: first blocks that warm up and are thrown away.
        num_requests: of a run that is one of many.
        num_arrivals: of a run with arrivals over time, or of mixed work: more, so that a queue can grow.
        num_live_variants: engines with other settings that are kept loaded from block to block: many where
            runs are so short that loading would be most of the time.
        length_scale: all lengths are multiplied by it, caps and means alike, so that their ratios stay.
        repeats_drifted: whether a run during which the machine changed is done again.
        has_all_levels: whether every workload, rate and setting is run, or those alone that say most.
    """

    num_blocks: int
    num_discarded: int
    num_requests: int
    num_arrivals: int
    num_live_variants: int
    length_scale: float
    repeats_drifted: bool
    has_all_levels: bool


EXTENTS = {
    "smoke": Extent(
        num_blocks=2,
        num_discarded=0,
        num_requests=8,
        num_arrivals=8,
        num_live_variants=16,
        length_scale=1 / 8,
        repeats_drifted=False,
        has_all_levels=False,
    ),
    "ci": Extent(
        num_blocks=3,
        num_discarded=0,
        num_requests=16,
        num_arrivals=16,
        num_live_variants=16,
        length_scale=1 / 8,
        repeats_drifted=False,
        has_all_levels=False,
    ),
    # Engines are warmed up when they start: a block to discard would cost a sixth of the time.
    "full": Extent(
        num_blocks=5,
        num_discarded=0,
        num_requests=32,
        num_arrivals=40,
        num_live_variants=16,
        length_scale=1 / 4,
        repeats_drifted=True,
        has_all_levels=False,
    ),
    "paper": Extent(
        num_blocks=5,
        num_discarded=1,
        num_requests=1000,
        num_arrivals=1000,
        num_live_variants=3,
        length_scale=1.0,
        repeats_drifted=True,
        has_all_levels=True,
    ),
}

# Where an experiment has many conditions or long requests, a size means less of it.
_CHANGES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("smoke", "trace"): {"num_requests": 4, "num_arrivals": 6, "length_scale": 1 / 16},
    ("full", "rate-curve"): {"num_requests": 24, "num_arrivals": 24, "length_scale": 1 / 8},
    ("full", "trace"): {"num_requests": 12, "num_arrivals": 24, "length_scale": 1 / 8},
    ("full", "sensitivity"): {"num_arrivals": 32, "length_scale": 1 / 8},
    ("full", "ablation"): {"num_arrivals": 24, "length_scale": 1 / 8},
}


def extent_of(size: str, experiment: str) -> Extent:
    """What a size means for an experiment.

    Raises:
        KeyError: there is no such size.
    """
    return replace(EXTENTS[size], **_CHANGES.get((size, experiment), {}))
