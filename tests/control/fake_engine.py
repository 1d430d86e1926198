"""A real engine over the fake executor, and what clients of it see."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.policy import Policy
from octavo.control.scheduler.preemption import PreemptionCost
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.step_trace import StepTrace
from octavo.request import FinishReason, TokenDelta
from octavo.step import StepPlan, StepResult
from tests.fake_executor import FakeExecutor

VOCAB_SIZE = 1000
EOS_TOKEN_ID = 0


class RecordingExecutor(FakeExecutor):
    """Keeps every plan that it was given."""

    def __init__(self, num_blocks: int, block_size: int, vocab_size: int, num_host_blocks: int = 0) -> None:
        super().__init__(num_blocks, block_size, vocab_size, num_host_blocks)
        self.plans: list[StepPlan] = []

    def collect(self) -> StepResult:
        self.plans.append(self._in_flight[0])
        return super().collect()


@dataclass
class Output:
    """One sequence as its client sees it."""

    token_ids: list[int] = field(default_factory=list)
    deltas: list[TokenDelta] = field(default_factory=list)

    @property
    def finish_reason(self) -> FinishReason | None:
        return self.deltas[-1].finish_reason

    @property
    def error(self) -> str | None:
        return self.deltas[-1].error


class FakeEngine:
    """An engine with its parts at hand."""

    def __init__(
        self,
        *,
        num_blocks: int = 100,
        block_size: int = 4,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 128,
        max_model_len: int = 1024,
        max_queued_requests: int = 1024,
        seed: int | None = None,
        executor: FakeExecutor | None = None,
        cache: BlockManager | None = None,
        prefix_caching: bool = False,
        num_host_blocks: int = 0,
        policy: Policy | None = None,
        preemption_cost: PreemptionCost | None = None,
        target_itl_seconds: float | None = None,
        **limits: Any,
    ) -> None:
        """`limits` are further arguments of Engine."""
        self.cache = cache or BlockManager(
            num_blocks, block_size, prefix_caching=prefix_caching, num_host_blocks=num_host_blocks
        )
        self.recorder = RecordingExecutor(num_blocks, block_size, VOCAB_SIZE, num_host_blocks)
        self.executor = executor or self.recorder
        self.scheduler = Scheduler(
            self.cache,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            policy=policy,
            preemption_cost=preemption_cost,
            target_itl_seconds=target_itl_seconds,
        )
        self.engine = Engine(
            self.scheduler,
            self.executor,
            eos_token_ids=[EOS_TOKEN_ID],
            vocab_size=VOCAB_SIZE,
            max_model_len=max_model_len,
            max_queued_requests=max_queued_requests,
            seed=seed,
            **limits,
        )
        self.outputs: dict[tuple[str, int], Output] = defaultdict(Output)
        self.traces: list[StepTrace] = []

    @property
    def plans(self) -> list[StepPlan]:
        return self.recorder.plans

    def step(self) -> list[TokenDelta]:
        """One step, with what the cache must obey checked after it and freed blocks made unreadable."""
        deltas = self.engine.step()
        for delta in deltas:
            output = self.outputs[delta.request_id, delta.index]
            assert not output.deltas or output.finish_reason is None, "a delta after the last one"
            output.deltas.append(delta)
            output.token_ids += delta.token_ids
        assert self.engine.last_step is not None
        self.traces.append(self.engine.last_step)
        self.cache.check_invariants()
        self.executor.poison(self.cache.pool.empty_block_ids)
        return deltas

    def run(self, limit: int = 10_000) -> dict[tuple[str, int], Output]:
        """Step until there is no more work."""
        for _ in range(limit):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "the engine does not come to an end"
        assert self.cache.num_used_blocks == 0
        return self.outputs
