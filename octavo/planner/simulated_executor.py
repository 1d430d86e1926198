"""An executor that computes nothing: drawn tokens at once, for measuring what scheduler and cache do.

Obeys the seam like any other; what it samples depends on seed and position alone, and on nothing it is fed.
"""

from __future__ import annotations

from collections import deque

from octavo.step import Candidate, SampledToken, SampleRequest, StepPlan, StepResult

# Knuth's multiplicative hash and a second odd number: neighbouring seeds and positions go apart.
_SEED_FACTOR, _POSITION_FACTOR = 2654435761, 40503


class SimulatedExecutor:
    """Answers every slice that samples.

    Args:
        vocab_size: tokens are from 0 to below it.
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._in_flight: deque[StepPlan] = deque()

    def submit(self, plan: StepPlan) -> None:
        """Queue a plan."""
        self._in_flight.append(plan)

    def collect(self) -> StepResult:
        """The oldest plan's result.

        Raises:
            ValueError: a slice asks for prompt log-probabilities, which nothing computed.
        """
        plan = self._in_flight.popleft()
        result = StepResult(plan.step_id, tokens={})
        for piece in plan.slices:
            if piece.prompt_logprob_targets:
                raise ValueError("a simulated executor has no log-probabilities")
            sample = piece.sample
            if sample is None:
                continue
            token_id = self._draw(sample)
            if sample.num_candidates:
                result.candidates[piece.sequence_id] = [
                    Candidate((token_id + rank) % self.vocab_size, -1.0 - rank)
                    for rank in range(min(sample.num_candidates, self.vocab_size))
                ]
            else:
                result.tokens[piece.sequence_id] = SampledToken(token_id)
        return result

    def close(self) -> None:
        """There is nothing to release."""

    def _draw(self, sample: SampleRequest) -> int:
        return (sample.seed * _SEED_FACTOR + sample.position * _POSITION_FACTOR) % self.vocab_size
