"""Whether a preempted request is swapped out or computed again: the cheaper of the two, as measured.

Owns the running estimates. Knows no sequences and no clock.
"""

from __future__ import annotations

# Until something has been measured: a slow core's prefill, and half of a slow machine's memory bandwidth.
_FIRST_SECONDS_PER_TOKEN = 1e-3
_FIRST_SECONDS_PER_BYTE = 1 / 2e9
# Weight of a new measurement.
_ALPHA = 0.2
# Steps with fewer tokens say more about their fixed cost than about the cost of a token.
_MIN_STEP_TOKENS = 32


class PreemptionCost:
    """Seconds of computing a token again against seconds of copying a block out and in.

    Args:
        block_bytes: size of a KV block over all layers.
    """

    def __init__(self, block_bytes: int) -> None:
        self._seconds_per_token = _FIRST_SECONDS_PER_TOKEN
        self._seconds_per_block = block_bytes * _FIRST_SECONDS_PER_BYTE
        self._has_seen_step = False
        self._has_seen_copy = False

    def observe_step(self, num_tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long, copies not counted."""
        if num_tokens < _MIN_STEP_TOKENS:
            return
        per_token = seconds / num_tokens
        alpha = _ALPHA if self._has_seen_step else 1.0
        self._seconds_per_token += alpha * (per_token - self._seconds_per_token)
        self._has_seen_step = True

    def observe_copies(self, num_blocks: int, seconds: float) -> None:
        """Copying so many blocks took so long."""
        if num_blocks == 0 or seconds <= 0.0:
            return
        alpha = _ALPHA if self._has_seen_copy else 1.0
        self._seconds_per_block += alpha * (seconds / num_blocks - self._seconds_per_block)
        self._has_seen_copy = True

    def prefers_swap(self, num_tokens: int, num_blocks: int) -> bool:
        """Whether swapping blocks out and in again costs less than computing tokens again."""
        return 2 * num_blocks * self._seconds_per_block < num_tokens * self._seconds_per_token
