"""How many tokens a step may take in, so that it ends within a target time. Owns an estimate; no clock."""

from __future__ import annotations

# Forgetting per step: what is known is mostly of the last fifty steps.
_DECAY = 0.98
# A step always takes in so many tokens of prefill, or prompts would starve behind a target out of reach.
MIN_PREFILL_TOKENS = 16


class TokenBudget:
    """The budget of one step. Without a target it is the limit, always.

    With a target, seconds = fixed + tokens x slope is fitted to the last steps, by least squares with
    forgetting, and the budget is what fits into the target.

    Args:
        max_tokens: the limit, `--max-num-batched-tokens`.
        target_seconds: how long a step with running decodes should take at most; None for no target.
    """

    def __init__(self, max_tokens: int, target_seconds: float | None) -> None:
        self.max_tokens = max_tokens
        self._target_seconds = target_seconds
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, num_tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        if self._target_seconds is None or num_tokens == 0:
            return
        self._weight = self._weight * _DECAY + 1.0
        self._x = self._x * _DECAY + num_tokens
        self._y = self._y * _DECAY + seconds
        self._xx = self._xx * _DECAY + num_tokens * num_tokens
        self._xy = self._xy * _DECAY + num_tokens * seconds

    def tokens(self, num_decodes: int) -> int:
        """The next step's budget, with so many tokens of it for decodes. Nobody waits if there are none."""
        if self._target_seconds is None or num_decodes == 0 or self._weight == 0.0:
            return self.max_tokens
        fixed, slope = self._fit()
        affordable = int((self._target_seconds - fixed) / slope) if slope > 0.0 else self.max_tokens
        return max(min(affordable, self.max_tokens), min(num_decodes + MIN_PREFILL_TOKENS, self.max_tokens))

    def _fit(self) -> tuple[float, float]:
        """Seconds of an empty step, and seconds a token."""
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x * mean_x
        # Steps of nearly one size say nothing about the slope: all of the time is then put on the tokens.
        if variance < 0.01 * mean_x * mean_x:
            return 0.0, mean_y / mean_x
        slope = (self._xy / self._weight - mean_x * mean_y) / variance
        fixed = mean_y - slope * mean_x
        if slope <= 0.0 or fixed < 0.0:
            return 0.0, mean_y / mean_x
        return fixed, slope
