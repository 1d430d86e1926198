"""InProcessExecutor: one rank, in the process and the thread of its caller."""

from __future__ import annotations

from collections import deque

from octavo.compute.executor.worker import Worker
from octavo.step import StepPlan, StepResult


class InProcessExecutor:
    """An Executor whose work happens in `collect`: with one rank there is nobody to overlap with."""

    def __init__(self, worker: Worker) -> None:
        self._worker: Worker | None = worker
        self._plans: deque[StepPlan] = deque()

    def submit(self, plan: StepPlan) -> None:
        """Queue a plan. Its block tables are read in `collect`."""
        if self._worker is None:
            raise RuntimeError("the executor is closed")
        self._plans.append(plan)

    def collect(self) -> StepResult:
        """Calculate the oldest plan; see `Executor.collect`."""
        if self._worker is None:
            raise RuntimeError("the executor is closed")
        if not self._plans:
            raise RuntimeError("no plan is in flight")
        # Taken out before it runs: a plan that fails is no longer in flight.
        return self._worker.run(self._plans.popleft())

    def close(self) -> None:
        """Release the model and the cache. Idempotent."""
        self._plans.clear()
        self._worker = None
