"""What one step did and in what state it left the engine: numbers for metrics, benches and people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTrace:
    """One step of the engine. The counts describe the state after it.

    Attributes:
        num_running, num_waiting: sequences.
        num_prefill_tokens, num_decode_tokens: tokens that the step computed.
        blocks_used, blocks_free: KV blocks.
        used_slots, empty_slots: slots of used blocks with and without a token.
        blocks_cached: free blocks that hold a known prefix.
        sharing: blocks saved by sharing over those needed without it.
        num_swapped: sequences whose blocks are in the host pool.
        host_blocks_used: blocks of the host pool.
        num_preemptions: sequences that lost their blocks for this step, or were swapped out.
        plan_seconds: scheduling.
        compute_seconds: the executor's own measure of its work.
        step_seconds: all of it.
    """

    step_id: int
    num_running: int
    num_waiting: int
    num_prefill_tokens: int
    num_decode_tokens: int
    blocks_used: int
    blocks_free: int
    used_slots: int
    empty_slots: int
    blocks_cached: int
    sharing: float
    num_swapped: int
    host_blocks_used: int
    num_preemptions: int
    plan_seconds: float
    compute_seconds: float
    step_seconds: float

    @property
    def num_tokens(self) -> int:
        return self.num_prefill_tokens + self.num_decode_tokens

    @property
    def waste(self) -> float:
        """Reserved but empty slots over used slots; 0 for an empty cache."""
        return self.empty_slots / self.used_slots if self.used_slots else 0.0
