"""Runs an experiment: blocks in random order, targets in turns, whatever was done already left alone.

A target that does not start, or breaks, is reported in one line; the rest goes on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic_ns
from typing import Any

from octavo.bench.experiments.experiment import OPEN_LOOP, Condition, Experiment, Setup, TimedRequest
from octavo.bench.experiments.measures import measure_run, time_requests
from octavo.bench.experiments.policies import drive
from octavo.bench.experiments.requests import turned
from octavo.bench.experiments.results import Results, RunOutcome
from octavo.bench.experiments.store import ResultsFolder
from octavo.bench.load.conformance import Reference, check_conformance, make_reference
from octavo.bench.load.metrics import is_client_bound, is_whole
from octavo.bench.statistics.drift import drift, has_drifted, sample_noise
from octavo.bench.targets.target import (
    Ability,
    BenchRequest,
    Pausable,
    RunRecord,
    Target,
    TargetDescription,
    TargetError,
    TargetStep,
)
from octavo.errors import OctavoError

MakeTarget = Callable[[str, Mapping[str, Any]], Target]

# A run whose surroundings changed is done again at most so often.
_MOST_REPEATS = 2
_WARM_UP_TOKENS = 4
_NUM_WARM_UP_REQUESTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Attributes:
    num_done, num_all: runs; later phases are not known before their time.
    minutes_left: of this phase, at the mean of its runs so far; None before a block of them is done.
    """

    num_done: int
    num_all: int
    line: str
    minutes_left: float | None = None


class ExperimentRunner:
    """One experiment against some targets.

    Args:
        make_target: a target by name, with these settings of its engine changed.
        on_progress: called before each run, and at the end.
    """

    def __init__(
        self,
        experiment: Experiment,
        setup: Setup,
        folder: ResultsFolder,
        targets: Sequence[str],
        make_target: MakeTarget,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._experiment = experiment
        self._setup = setup
        self._folder = folder
        self._pool = _TargetPool(make_target, setup, targets[0])
        self._on_progress = on_progress or (lambda progress: None)
        self._num_done = 0
        self._num_runs: Counter[str] = Counter()
        self.results = Results(targets, setup.extent.num_discarded)
        self.descriptions = self._pool.descriptions
        self.conformance = self._pool.conformance

    async def run(self) -> Results:
        """Everything that is not there yet.

        Raises:
            ConfigError, OctavoError: what needs no target went wrong.
        """
        self._folder.load(self.results)
        descriptions, conformance = self._folder.load_targets()
        self.descriptions.update(descriptions)
        # What failed is tried again, and must pass before it is measured.
        self.conformance.update({name: one for name, one in conformance.items() if one["failure"] is None})
        calculated = self._folder.load_calculated()
        if calculated is None:
            calculated = self._experiment.calculate(self._setup)
            self._folder.keep_calculated(calculated)
        self.results.calculated = calculated
        try:
            for phase in self._experiment.phases(self._setup):
                await self._run_phase(phase(self.results))
        finally:
            await self._pool.stop_all()
        self.results.failures = dict(self._pool.failures)
        return self.results

    async def _run_phase(self, conditions: Sequence[Condition]) -> None:
        extent = self._setup.extent
        num_blocks = extent.num_blocks + extent.num_discarded
        runs = [run for block in range(num_blocks) for run in self._order(conditions, block)]
        num_all = self._num_done + len(runs)
        to_do = [run for run in runs if not self.results.has(run[0].name, run[1], run[2])]
        num_run, started_ns = 0, monotonic_ns()
        for condition, target, block in runs:
            minutes_left = None
            if num_run >= len(runs) // num_blocks:
                minutes_each = (monotonic_ns() - started_ns) / 60e9 / num_run
                minutes_left = minutes_each * (len(to_do) - num_run)
            line = f"block {block + 1} of {num_blocks}: {condition.name}, {target}"
            self._on_progress(
                Progress(num_done=self._num_done, num_all=num_all, line=line, minutes_left=minutes_left)
            )
            self._num_done += 1
            if not self.results.has(condition.name, target, block):
                num_run += 1
                if target not in self._pool.failures:
                    await self._run_one(condition, target, block)
        self._on_progress(Progress(num_done=self._num_done, num_all=num_all, line=""))

    def _order(self, conditions: Sequence[Condition], block: int) -> list[tuple[Condition, str, int]]:
        """Conditions in random order; targets forwards in one block and backwards in the next (ABBA)."""
        shuffled = list(conditions)
        random.Random(f"{self._setup.seed}/{block}").shuffle(shuffled)
        targets = list(self.results.targets)
        if block % 2:
            targets.reverse()
        return [(condition, target, block) for condition in shuffled for target in targets]

    async def _run_one(self, condition: Condition, name: str, block: int) -> None:
        try:
            for repeat in range(_MOST_REPEATS + 1):
                num_known = len(self.descriptions)
                target = await self._pool.get(name, condition.overrides)
                if len(self.descriptions) > num_known:
                    self._folder.keep_targets(self.descriptions, self.conformance)
                self._pool.let_run_alone(target)
                load = self._load_for(name, target, condition, block)
                before = sample_noise()
                record = await run_condition(target, condition, load, block=block)
                after = sample_noise()
                outcome = replace(
                    _outcome_of(record, condition),
                    target=name,
                    drift=drift(before, after),
                    load_average=after.load_average,
                    num_repeats=repeat,
                )
                if not (self._setup.extent.repeats_drifted and has_drifted(before, after)):
                    break
        except (TargetError, OctavoError) as error:
            # Where the engine as it was asked for runs, it is the condition's own setting that failed.
            what = f"{condition.name}, {name}" if condition.overrides else name
            self._pool.failures[what] = str(error)
            return
        self.results.add(outcome)
        self._folder.keep(outcome)

    def _load_for(self, name: str, target: Target, condition: Condition, block: int) -> list[TimedRequest]:
        """The block's requests.

        A block's conditions share seeds, and a run may be repeated: a target that cannot forget its prefix
        cache gets other beginnings each time, or it would know the prompts.
        """
        self._num_runs[name] += 1
        by = 0 if Ability.CACHE_RESET in target.abilities else self._num_runs[name]
        load = condition.load(self._setup.seed * 1000 + block)
        return turned(load, by, self._setup.vocabulary)


async def run_condition(
    target: Target, condition: Condition, load: Sequence[TimedRequest], *, block: int
) -> RunRecord:
    """One run, with nothing cached before it where the target can forget. Raises TargetError."""
    await target.reset()
    await target.take_steps()
    before = await target.stats()
    started_ns = monotonic_ns()
    requests = await drive(target, load, condition.policy, condition.policy_rows)
    ended_ns = monotonic_ns()
    after = await target.stats()
    if all(one.error is not None for one in requests):
        raise TargetError(requests[0].error or "no request ended")
    return RunRecord(
        target=target.name,
        workload=condition.name,
        block=block,
        started_ns=started_ns,
        ended_ns=ended_ns,
        requests=requests,
        steps=list(await target.take_steps()),
        stats={
            name: value if name.startswith("peak_") else value - before.get(name, 0.0)
            for name, value in after.items()
        },
    )


def _outcome_of(record: RunRecord, condition: Condition) -> RunOutcome:
    times = time_requests(record)
    errors = [
        f"{one.request_id}: {one.error or f'{one.num_output_tokens} of {one.num_requested_tokens} tokens'}"
        for one in record.requests
        if not is_whole(one)
    ]
    start_ns = min((one.scheduled_ns for one in record.requests), default=record.started_ns)
    return RunOutcome(
        condition=condition.name,
        target=record.target,
        block=record.block,
        metrics=measure_run(record),
        requests=times,
        steps=_columns(record.steps, start_ns),
        stats=dict(record.stats),
        errors=errors,
        # Under other policies requests are held back on purpose.
        is_client_bound=condition.policy == OPEN_LOOP
        and is_client_bound([one.send_lag_ms for one in times], [one.ttft_ms for one in times]),
    )


def _columns(steps: Sequence[TargetStep], start_ns: int) -> dict[str, list[float]]:
    if not steps:
        return {}
    rows = [asdict(step) for step in steps]
    columns = {name: [row[name] for row in rows] for name in rows[0] if not name.endswith("_ns")}
    times = {
        f"{end}_ms": [round((row[f"{end}_ns"] - start_ns) / 1e6, 3) for row in rows]
        for end in ("start", "end")
    }
    return times | columns


class _TargetPool:
    """Targets that are started when they are first needed, and warmed up; at the end all are stopped.

    A target must make of a few prompts what the first one makes of them, at exact lengths, or it has failed:
    what does other work is not compared.
    """

    def __init__(self, make_target: MakeTarget, setup: Setup, first: str) -> None:
        self._make = make_target
        self._setup = setup
        self._first = first
        self._reference: Reference | None = None
        self.conformance: dict[str, Any] = {}
        self._live: dict[tuple[str, str], Target] = {}
        self.descriptions: dict[str, TargetDescription] = {}
        self.failures: dict[str, str] = {}

    async def get(self, name: str, overrides: Mapping[str, Any]) -> Target:
        """Raises TargetError: it does not start, or does not survive its warm-up."""
        key = name, repr(sorted(overrides.items()))
        if key in self._live:
            self._live[key] = self._live.pop(key)  # the one used last is stopped last
            return self._live[key]
        variants = [other for other in self._live if other[1] != repr([])]
        if overrides and len(variants) >= self._setup.extent.num_live_variants:
            await self._live.pop(variants[0]).stop()
        is_unchecked = name != self._first and name not in self.conformance
        if is_unchecked and self._reference is None and self._first not in self.failures:
            try:
                await self.get(self._first, {})
            except (TargetError, OctavoError) as error:
                self.failures[self._first] = str(error)
        target = self._make(name, overrides)
        self._live[key] = target
        self.let_run_alone(target)
        description = await target.start()
        if name not in self.descriptions or not overrides:
            self.descriptions[name] = description
        await target.generate_batch(self._warm_up_requests())
        await self._check(name, target)
        return target

    async def _check(self, name: str, target: Target) -> None:
        """Raises TargetError: it does not do the same work as the first target."""
        if name == self._first:
            if self._reference is None and Ability.TOKEN_IDS in target.abilities:
                self._reference = await make_reference(target, self._setup.text)
        elif self._reference is not None and name not in self.conformance:
            found = await check_conformance(target, self._reference, must_be_equal=False)
            self.conformance[name] = asdict(found)
            if found.failure is not None:
                raise TargetError(f"{name}: not comparable: {found.failure}")

    def let_run_alone(self, target: Target) -> None:
        """Hold all others still, as far as they can be."""
        for other in self._live.values():
            if isinstance(other, Pausable) and other is not target:
                other.pause()
        if isinstance(target, Pausable):
            target.resume()

    def _warm_up_requests(self) -> list[BenchRequest]:
        vocabulary = self._setup.vocabulary
        prompts = [
            list(vocabulary.token_ids[number : number + 16]) for number in range(_NUM_WARM_UP_REQUESTS)
        ]
        return [
            BenchRequest(
                request_id=f"warm-up-{number}",
                prompt_token_ids=prompt,
                prompt_text=vocabulary.decode(prompt),
                num_output_tokens=_WARM_UP_TOKENS,
            )
            for number, prompt in enumerate(prompts)
        ]

    async def stop_all(self) -> None:
        for target in self._live.values():
            if isinstance(target, Pausable):
                target.resume()
            await target.stop()
        self._live.clear()
