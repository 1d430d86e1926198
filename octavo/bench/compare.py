"""Engines side by side: all loaded, one at a time awake, taking turns in blocks of random order.

The block is the unit: each holds every kind of work for every target. The first one warms up and is
discarded; one during which the machine itself changed is measured again. Each is kept as it ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from octavo.bench.block_log import BlockLog
from octavo.bench.compare_spec import CompareSpec
from octavo.bench.load.client import run_batch
from octavo.bench.load.conformance import Conformance, Reference, check_conformance, make_reference
from octavo.bench.load.works import Work, make_works, rate_of, warm_up_spec
from octavo.bench.machine import describe_machine
from octavo.bench.statistics.drift import NoiseSample, drift, has_drifted, sample_noise
from octavo.bench.targets.target import Pausable, Target, TargetDescription, TargetError
from octavo.build import TextParts
from octavo.errors import ConfigError

# A machine that never calms down must not hold a run for ever.
_MAX_REPEATED_BLOCKS = 3
_SAME_ENGINE = "octavo"


@dataclass(kw_only=True)
class Contender:
    """One target while the comparison lasts.

    Attributes:
        failure: one line once it is out; nothing of it counts in blocks after that.
    """

    target: Target
    description: TargetDescription | None = None
    conformance: Conformance | None = None
    failure: str | None = None

    @property
    def is_in(self) -> bool:
        return self.failure is None


@dataclass(kw_only=True)
class ComparisonRun:
    """What a comparison has brought.

    Attributes:
        blocks: those that count, in order: target -> work -> tokens a second.
        num_repeated: blocks measured again because the machine changed.
    """

    spec: CompareSpec
    contenders: list[Contender]
    work_names: list[str] = field(default_factory=list)
    blocks: list[dict[str, dict[str, float]]] = field(default_factory=list)
    num_repeated: int = 0

    def values(self, target: str, work: str) -> list[float]:
        """Of the blocks that have it."""
        return [block[target][work] for block in self.blocks if work in block.get(target, {})]

    def pairs(self, first: str, second: str, work: str) -> tuple[list[float], list[float]]:
        """Of the blocks that have both."""
        both = [
            (block[first][work], block[second][work])
            for block in self.blocks
            if work in block.get(first, {}) and work in block.get(second, {})
        ]
        return [one for one, _ in both], [other for _, other in both]

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": "compare",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe_machine()),
            "spec": asdict(self.spec),
            "targets": [
                {
                    "name": one.target.name,
                    "description": None if one.description is None else asdict(one.description),
                    "conformance": None if one.conformance is None else asdict(one.conformance),
                    "failure": one.failure,
                }
                for one in self.contenders
            ],
            "works": self.work_names,
            "blocks": self.blocks,
            "num_repeated": self.num_repeated,
        }


async def run_compare(
    targets: Sequence[Target],
    spec: CompareSpec,
    text: TextParts,
    *,
    log: BlockLog | None = None,
    on_done: Callable[[str], None] | None = None,
) -> ComparisonRun:
    """Start all, check what they do, measure in blocks. A target that fails is out, and the rest goes on.

    Args:
        targets: the first is the one that the others are compared with, and the reference of conformance.
        log: where blocks are kept; those that it has already are not measured again.
        on_done: called with a word for each step of the work.

    Raises:
        ConfigError: two targets have the same name, or the first one cannot be had.
    """
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise ConfigError("two targets have the same name; tell them apart by LABEL:NAME")
    tell = on_done or (lambda what: None)
    contenders = [Contender(target=target) for target in targets]
    run = ComparisonRun(spec=spec, contenders=contenders)
    run.work_names = [work.name for work in make_works(spec.works, text, block=0)]
    try:
        await _start_all(contenders, text, tell)
        await _measure_block(contenders, make_works(warm_up_spec(spec.works), text, block=-1), -1, spec)
        tell("warm-up")
        await _measure_blocks(run, text, log, tell)
    finally:
        for one in contenders:
            await one.target.stop()
    return run


async def _start_all(contenders: Sequence[Contender], text: TextParts, tell: Callable[[str], None]) -> None:
    reference: Reference | None = None
    for one in contenders:
        try:
            one.description = await one.target.start()
            if reference is None:
                reference = await make_reference(one.target, text)
            one.conformance = await check_conformance(
                one.target, reference, must_be_equal=_must_be_equal(one, contenders[0])
            )
            one.failure = one.conformance.failure
            _pause(one)
        except TargetError as error:
            one.failure = str(error)
        if not one.is_in and one is contenders[0]:
            raise ConfigError(f"the first target cannot be compared with: {one.failure}")
        tell(one.target.name)


def _must_be_equal(one: Contender, first: Contender) -> bool:
    """The same engine over the same weights in the same format gives the same tokens, always."""
    here, there = one.description, first.description
    if here is None or there is None or {here.engine, there.engine} != {_SAME_ENGINE}:
        return False
    return not any("dtype" in flag for flag in (*here.flags, *there.flags))


async def _measure_blocks(
    run: ComparisonRun, text: TextParts, log: BlockLog | None, tell: Callable[[str], None]
) -> None:
    kept = [] if log is None else log.read()
    run.blocks = kept[: run.spec.blocks]
    # The discarded block comes first in every session: after a stop the machine is cold again, too.
    is_discarded, attempt = True, len(kept)
    while len(run.blocks) < run.spec.blocks:
        attempt += 1
        works = make_works(run.spec.works, text, block=attempt)
        before = sample_noise()
        block = await _measure_block(run.contenders, works, attempt, run.spec)
        after = sample_noise()
        if is_discarded:
            is_discarded = False
            tell("discarded block")
            continue
        if has_drifted(before, after) and run.num_repeated < _MAX_REPEATED_BLOCKS:
            run.num_repeated += 1
            tell("repeated block")
            continue
        run.blocks.append(block)
        if log is not None:
            log.append(block, _noise(before, after))
        tell(f"block {len(run.blocks)}")


async def _measure_block(
    contenders: Sequence[Contender], works: Sequence[Work], number: int, spec: CompareSpec
) -> dict[str, dict[str, float]]:
    """Every work by every target, targets in an order that each work turns round."""
    order = [one for one in contenders if one.is_in]
    random.Random(f"{spec.works.seed}/order/{number}").shuffle(order)
    block: dict[str, dict[str, float]] = {one.target.name: {} for one in order}
    for work in works:
        for one in order:
            if not one.is_in:
                continue
            try:
                with _awake(one):
                    run = await run_batch(one.target, work.requests, workload=work.name, block=number)
                block[one.target.name][work.name] = rate_of(work, run)
            except TargetError as error:
                if "never decoded together" not in str(error):
                    one.failure = str(error)
        order.reverse()
    return block


@contextmanager
def _awake(one: Contender) -> Iterator[None]:
    if isinstance(one.target, Pausable):
        one.target.resume()
    try:
        yield
    finally:
        _pause(one)


def _pause(one: Contender) -> None:
    if isinstance(one.target, Pausable):
        one.target.pause()


def _noise(before: NoiseSample, after: NoiseSample) -> dict[str, float]:
    return {
        "calculation_ms": after.calculation_ms,
        "drift": drift(before, after),
        "load_average": after.load_average,
    }


def resume_path(path: Path | None) -> BlockLog | None:
    """The log beside an output file; None without one."""
    return None if path is None else BlockLog(path.with_suffix(".blocks.jsonl"))
