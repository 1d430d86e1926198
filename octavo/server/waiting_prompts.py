"""Prompts that were sent to the engine and have not begun: how many, of how many tokens, how fast they go.

Owns the queue's limits and the guess of when there will be room. Has no clock: times are passed in.
"""

from __future__ import annotations

import math

from octavo.errors import OverloadedError, RequestError

MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
# What counts as lately: starts that lie this much waiting time back weigh 1/e.
RATE_SECONDS = 30.0


class StartRate:
    """Prompt tokens that leave the queue per second, of the time in which any waited."""

    def __init__(self) -> None:
        self._num_tokens = 0.0
        self._seconds = 0.0
        self._last_seconds: float | None = None

    def begin_waiting(self, now: float) -> None:
        """The queue was empty and is no longer."""
        self._last_seconds = now

    def end_waiting(self) -> None:
        """The queue is empty: time that passes now says nothing."""
        self._last_seconds = None

    def record(self, num_tokens: int, now: float) -> None:
        """Tokens left the queue, to be computed."""
        passed = self._passed(now)
        decay = math.exp(-passed / RATE_SECONDS)
        self._num_tokens = self._num_tokens * decay + num_tokens
        self._seconds = self._seconds * decay + passed
        self._last_seconds = now

    def seconds_for(self, num_tokens: int, now: float) -> float:
        """How long so many tokens should take to leave the queue, within bounds fit for a person."""
        seconds = self._seconds + self._passed(now)
        # Before the first start, what waits has waited this long: it will take that long again.
        expected = seconds * num_tokens / self._num_tokens if self._num_tokens else seconds
        return min(max(expected, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)

    def _passed(self, now: float) -> float:
        return 0.0 if self._last_seconds is None else max(now - self._last_seconds, 0.0)


class WaitingPrompts:
    """Counts of the queue, and whether it has room.

    Args:
        max_prompts: prompts that may wait.
        max_tokens: prompt tokens that may wait; None: any number. One body's prompts are let in
            whatever their number of tokens while nothing waits: else they never would be.
    """

    def __init__(self, *, max_prompts: int, max_tokens: int | None) -> None:
        self._max_prompts = max_prompts
        self._max_tokens = max_tokens
        self._rate = StartRate()
        self.num_prompts = 0
        self.num_tokens = 0

    @property
    def is_full(self) -> bool:
        """Whether not even the smallest prompt would be let in."""
        return self._lacks_room(1, 1)

    def check_room(self, num_prompts: int, num_tokens: int, now: float) -> None:
        """Whether a body with so many prompts, of so many tokens in all, may join.

        Raises:
            OverloadedError: not now; says when to come back.
            RequestError: never: it has more prompts than may wait.
        """
        if num_prompts > self._max_prompts:
            raise RequestError(
                f"prompt has {num_prompts} entries; this server lets at most {self._max_prompts} wait",
                param="prompt",
            )
        if self._lacks_room(num_prompts, num_tokens):
            raise OverloadedError(
                f"the queue is full ({self.num_prompts} prompts with {self.num_tokens} tokens wait); "
                "try again later",
                retry_after_seconds=self.retry_after_seconds(now, num_prompts, num_tokens),
            )

    def retry_after_seconds(self, now: float, num_prompts: int = 1, num_tokens: int = 1) -> float:
        """When there should be room for so much, by the rate at which prompts have lately begun."""
        tokens_over = 0.0
        if self._max_tokens is not None:
            tokens_over = self.num_tokens + num_tokens - self._max_tokens
        prompts_over = self.num_prompts + num_prompts - self._max_prompts
        if prompts_over > 0 and self.num_prompts:
            tokens_over = max(tokens_over, self.num_tokens * prompts_over / self.num_prompts)
        if tokens_over <= 0:  # there is room: whoever asks gave up for another reason, so the whole queue
            tokens_over = self.num_tokens
        return self._rate.seconds_for(math.ceil(min(tokens_over, self.num_tokens)), now)

    def add(self, num_tokens: int, now: float) -> None:
        """A prompt joined."""
        if not self.num_prompts:
            self._rate.begin_waiting(now)
        self.num_prompts += 1
        self.num_tokens += num_tokens

    def begin(self, num_tokens: int, now: float) -> None:
        """The engine began with a prompt."""
        self._rate.record(num_tokens, now)
        self.remove(num_tokens)

    def remove(self, num_tokens: int) -> None:
        """A prompt left without having begun."""
        self.num_prompts -= 1
        self.num_tokens -= num_tokens
        if not self.num_prompts:
            self._rate.end_waiting()

    def _lacks_room(self, num_prompts: int, num_tokens: int) -> bool:
        if self.num_prompts + num_prompts > self._max_prompts:
            return True
        if self._max_tokens is None or not self.num_prompts:
            return False
        return self.num_tokens + num_tokens > self._max_tokens
