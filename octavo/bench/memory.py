"""The vLLM paper's figure 2: what share of the KV memory holds tokens, and where the rest goes.

Paged blocks go through the real engine, scheduler and cache, over an executor that computes nothing;
contiguous reservations through a simulated allocator under the same scheduling.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from octavo.bench import paper
from octavo.bench.contiguous import RESERVATIONS, ContiguousRun, Lengths
from octavo.bench.machine import describe_machine
from octavo.bench.memory_spec import MemorySpec
from octavo.bench.memory_use import MemoryUse, SlotUse, UseMeter
from octavo.bench.traces import Trace, make_trace
from octavo.bench.workload import WorkloadRequest, make_workload
from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.scheduler import Scheduler
from octavo.errors import ConfigError
from octavo.planner.simulated_executor import SimulatedExecutor
from octavo.request import Request, SequenceStatus

_VOCAB_SIZE = 32_000


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """Attributes:
    uses: contiguous reservations first, then paged blocks.
    """

    spec: MemorySpec
    trace: Trace
    uses: list[MemoryUse]

    def as_json(self) -> dict[str, Any]:
        """Everything, with what the paper printed beside it."""
        return {
            "benchmark": "memory",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe_machine()),
            "load_average": os.getloadavg(),
            "spec": asdict(self.spec),
            "trace": asdict(self.trace),
            "measured": [use.as_json() for use in self.uses],
            "paper": {
                "source": paper.CITATION,
                "figure_2_percent": paper.kv_usage_percent(),
                "figure_13_mean_batch": {name: paper.mean_batches(name) for name in ("ShareGPT", "Alpaca")},
            },
        }


def run_memory(spec: MemorySpec, *, on_done: Callable[[str], None] | None = None) -> MemoryReport:
    """Run one trace through every allocator.

    Args:
        on_done: told each allocator's name when it has been measured.

    Raises:
        ConfigError, RequestError: a request can never fit.
        ConfigError: memory is never short.
    """
    trace = make_trace(
        spec.trace, num_requests=spec.num_requests, seed=spec.seed, max_model_len=spec.max_model_len
    )
    requests = make_workload(trace.workload, range(_VOCAB_SIZE))
    runs: list[Callable[[], MemoryUse]] = [
        partial(measure_contiguous, spec, requests, name) for name in RESERVATIONS
    ]
    runs += [PagedRun(spec, requests, block_size).measure for block_size in spec.block_sizes]
    uses = []
    for run in runs:
        use = run()
        if use.num_steps == 0:
            raise ConfigError(
                f"no request had to wait for memory under {use.name}: give more --num-requests or fewer "
                "--num-slots"
            )
        uses.append(use)
        if on_done is not None:
            on_done(use.name)
    return MemoryReport(spec=spec, trace=trace, uses=uses)


def measure_contiguous(spec: MemorySpec, requests: list[WorkloadRequest], reservation: str) -> MemoryUse:
    """One reservation rule on the trace."""
    lengths = [Lengths(len(one.prompt_token_ids), one.params.max_tokens or 0) for one in requests]
    return ContiguousRun(
        lengths,
        reservation=reservation,
        num_slots=spec.num_slots,
        max_model_len=spec.max_model_len,
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=spec.max_num_batched_tokens,
    ).measure()


class PagedRun:
    """The trace on paged blocks: the real engine, scheduler and cache.

    Raises:
        RequestError: a request can never fit.
    """

    def __init__(self, spec: MemorySpec, requests: list[WorkloadRequest], block_size: int) -> None:
        self._num_slots = spec.num_slots
        self._block_size = block_size
        self._cache = BlockManager(max(spec.num_slots // block_size, 1), block_size)
        self.engine = Engine(
            Scheduler(
                self._cache,
                max_num_seqs=spec.max_num_seqs,
                max_num_batched_tokens=spec.max_num_batched_tokens,
            ),
            SimulatedExecutor(_VOCAB_SIZE),
            eos_token_ids=(),
            vocab_size=_VOCAB_SIZE,
            max_model_len=spec.max_model_len,
            max_queued_requests=len(requests),
            seed=spec.seed,
        )
        self._live = [
            self.engine.submit(str(number), request.prompt_token_ids, request.params)
            for number, request in enumerate(requests)
        ]
        self._max_num_batched_tokens = spec.max_num_batched_tokens

    def measure(self) -> MemoryUse:
        """Run to the end; means of the steps from the first that lacked memory to the last with a queue."""
        meter = UseMeter(self._num_slots)
        is_short_of_memory, num_steps, num_preemptions = False, 0, 0
        while self.engine.has_work:
            self.engine.step()
            num_steps += 1
            trace = self.engine.last_step
            if trace is None:
                continue
            num_preemptions += trace.num_preemptions
            if not trace.num_waiting:
                continue
            # Room in the step was left over, and somebody waits: it was memory that lacked.
            is_short_of_memory |= trace.num_tokens < self._max_num_batched_tokens
            if is_short_of_memory:
                meter.add(self.slot_use(), trace.num_running)
        self.engine.close()
        return meter.means(
            f"paged-{self._block_size}", num_all_steps=num_steps, num_preemptions=num_preemptions
        )

    def slot_use(self) -> SlotUse:
        """The memory as it is."""
        use = SlotUse(
            external=self._num_slots - self._cache.num_blocks * self._block_size,
            free=self._cache.num_free_blocks * self._block_size,
        )
        self._live = [request for request in self._live if not request.is_finished]
        for request in self._live:
            (sequence,) = request.sequences
            if sequence.status is SequenceStatus.RUNNING:
                num_set_aside = self._cache.num_table_blocks(sequence.sequence_id) * self._block_size
                use.add_request(sequence.num_computed_tokens, _num_final_slots(request), num_set_aside)
        return use


def _num_final_slots(request: Request) -> int:
    return Lengths(len(request.prompt_token_ids), request.max_tokens).num_final_slots
