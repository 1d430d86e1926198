"""Runs plans on an executor, and finds out who is to blame when a pass fails. Owns no sequence."""

from __future__ import annotations

import logging

from octavo.step import BlockCopyError, Executor, SequenceSlice, StepPlan, StepResult

_LOGGER = logging.getLogger(__name__)


class PlanRunner:
    """If a pass as a whole fails, its halves are retried until the culprits stand alone."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def run(self, plan: StepPlan) -> StepResult:
        """The plan's result; slices that broke are in its `failures`.

        Raises:
            BlockCopyError: the copies failed, so there is nothing to retry on.
        """
        try:
            self._executor.submit(plan)
            result = self._executor.collect()
            while result.step_id != plan.step_id:  # left over from an interrupted step
                result = self._executor.collect()
            return result
        except BlockCopyError:
            raise
        except Exception as error:
            _LOGGER.debug("step %d failed", plan.step_id, exc_info=error)
            if not plan.slices:
                raise BlockCopyError(f"block copies failed ({type(error).__name__})") from error
            if len(plan.slices) == 1:
                return _blame(plan, error)
        middle = len(plan.slices) // 2
        _LOGGER.warning("step %d failed; running its %d slices in halves", plan.step_id, len(plan.slices))
        # The copies have been made, and cannot be made twice: a source may have been overwritten since.
        first = self.run(StepPlan(plan.step_id, plan.slices[:middle]))
        second = self.run(StepPlan(plan.step_id, plan.slices[middle:]))
        return StepResult(
            plan.step_id,
            first.tokens | second.tokens,
            first.prompt_logprobs | second.prompt_logprobs,
            first.failures | second.failures,
            first.candidates | second.candidates,
            first.compute_seconds + second.compute_seconds,
        )

    def close(self) -> None:
        self._executor.close()


def _blame(plan: StepPlan, error: Exception) -> StepResult:
    piece: SequenceSlice = plan.slices[0]
    _LOGGER.error("sequence %d broke its step: %s: %s", piece.sequence_id, type(error).__name__, error)
    # The details stay in the log: an exception's text may hold paths or addresses.
    line = f"internal error while computing this request ({type(error).__name__})"
    return StepResult(plan.step_id, tokens={}, failures={piece.sequence_id: line})
