"""Where the time of one step goes, kernel by kernel: the recorded pass tells what each of its calls took."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from octavo.bench.machine import describe_machine
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.step_spec import StepSpec
from octavo.build import build_text, build_worker
from octavo.config import EngineConfig
from octavo.errors import ConfigError
from octavo.sampling_params import SamplingParams
from octavo.step import SampleRequest, SequenceSlice, StepPlan

_CHUNK_TOKENS = 256  # of the prompts that fill the cache beforehand


class CallTime(Protocol):
    """One call of a pass, and what it took in all."""

    @property
    def operation(self) -> str: ...
    @property
    def in_size(self) -> int: ...
    @property
    def out_size(self) -> int: ...
    @property
    def nanoseconds(self) -> int: ...


class TimedWorker(Protocol):
    """What runs plans and tells where their time goes: see octavo.build.build_worker."""

    def run(self, plan: StepPlan) -> object: ...
    def time_calls(self, plan: StepPlan, repeats: int) -> tuple[Sequence[CallTime], Sequence[float]]: ...


@dataclass(frozen=True, kw_only=True)
class KernelShare:
    """One kind of call in a step.

    Attributes:
        operation, in_size, out_size: as in CallTime; calls that agree in them are one kind.
        milliseconds: of all its calls in one step, mean of the repeats.
        gmacs_per_second: billions of multiply-adds a second; of products and attention.
    """

    operation: str
    in_size: int
    out_size: int
    num_calls: int
    milliseconds: float
    gmacs_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class StepShares:
    """One step: `milliseconds` as a whole (median), of which the pass's calls; the rest is head, sampling and
    the way there."""

    name: str
    num_tokens: int
    milliseconds: float
    kernels: list[KernelShare]

    @property
    def rest_milliseconds(self) -> float:
        return max(0.0, self.milliseconds - sum(kernel.milliseconds for kernel in self.kernels))


def run_step(
    config: EngineConfig, spec: StepSpec, *, on_done: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Every step of the spec, as one results file.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: a setting does not fit, or these kernels record no pass of this model.
    """
    text = build_text(config.model)
    longest = max(spec.context, spec.prefill)
    if longest > text.description.spec.max_positions:
        raise ConfigError(f"the model's context ends at {text.description.spec.max_positions} tokens")
    worker, block_size = build_worker(config), config.cache.block_size
    blocks_each = -(-longest // block_size)
    worker.allocate_kv(max(spec.streams) * blocks_each, block_size)
    bench = _StepBench(worker, ordinary_token_ids(text), block_size, blocks_each, spec.repeats)
    steps = []
    for num_streams in spec.streams:
        bench.fill(num_streams, spec.context - 1)
        steps.append(bench.measure(f"decode, {num_streams} streams", num_streams, spec.context - 1, 1))
        if on_done is not None:
            on_done()
    steps.append(bench.measure(f"prefill {spec.prefill}", 1, 0, spec.prefill))
    if on_done is not None:
        on_done()
    return {
        "benchmark": "step",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(describe_machine()),
        "weights": worker.dtype_name,
        "kernels": worker.kernels_name,
        "spec": asdict(spec),
        "steps": [asdict(step) | {"rest_milliseconds": step.rest_milliseconds} for step in steps],
    }


class _StepBench:
    """Makes plans for one worker and times them. Sequence i always has the same blocks and tokens."""

    def __init__(
        self, worker: TimedWorker, token_ids: list[int], block_size: int, blocks_each: int, repeats: int
    ) -> None:
        self._worker = worker
        self._token_ids = token_ids
        self._block_size = block_size
        self._blocks_each = blocks_each
        self._repeats = repeats

    def fill(self, num_sequences: int, num_tokens: int) -> None:
        """Compute the first tokens' keys and values: what the cache holds is then real."""
        for index in range(num_sequences):
            for start in range(0, num_tokens, _CHUNK_TOKENS):
                length = min(_CHUNK_TOKENS, num_tokens - start)
                self._worker.run(StepPlan(0, [self._slice(index, start, length)]))

    def measure(self, name: str, num_sequences: int, start: int, num_tokens: int) -> StepShares:
        """A step in which so many sequences compute `num_tokens` from `start` on, and then choose."""
        slices = [self._slice(index, start, num_tokens) for index in range(num_sequences)]
        for one in slices:
            one.sample = SampleRequest(SamplingParams(temperature=0.0), 0, start + num_tokens)
        try:
            times, seconds = self._worker.time_calls(StepPlan(0, slices), self._repeats)
        except RuntimeError as error:
            raise ConfigError(f"a step's calls cannot be told apart here: {error}") from None
        contexts = range(start + 1, start + num_tokens + 1)
        return StepShares(
            name=name,
            num_tokens=num_sequences * num_tokens,
            milliseconds=1e3 * statistics.median(seconds),
            kernels=_shares(times, self._repeats, num_sequences * num_tokens, num_sequences * sum(contexts)),
        )

    def _slice(self, index: int, start: int, num_tokens: int) -> SequenceSlice:
        tokens = random.Random(index).choices(self._token_ids, k=start + num_tokens)
        blocks = list(range(index * self._blocks_each, (index + 1) * self._blocks_each))
        return SequenceSlice(index, tokens[start:], start, blocks)


def _shares(times: Sequence[CallTime], repeats: int, num_tokens: int, num_seen: int) -> list[KernelShare]:
    """Calls of one kind together, the slowest first. num_seen: tokens that all rows together attend to."""
    kinds: dict[tuple[str, int, int], list[int]] = {}
    for time in times:
        kinds.setdefault((time.operation, time.in_size, time.out_size), []).append(time.nanoseconds)
    shares = []
    for (operation, in_size, out_size), nanoseconds in kinds.items():
        per_step_ns = sum(nanoseconds) / repeats
        macs = {"linear": in_size * out_size * num_tokens, "attention": 2 * in_size * num_seen}.get(operation)
        shares.append(
            KernelShare(
                operation=operation,
                in_size=in_size,
                out_size=out_size,
                num_calls=len(nanoseconds),
                milliseconds=per_step_ns / 1e6,
                gmacs_per_second=None if macs is None else macs * len(nanoseconds) / per_step_ns,
            )
        )
    return sorted(shares, key=lambda share: -share.milliseconds)
