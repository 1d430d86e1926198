"""How a request is to be served, besides how it is decoded: urgency, whose it is, and time limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from octavo.errors import RequestError

PRIORITY_RANGE = 2**31
MAX_KEY_CHARS = 256
MAX_SECONDS = 86400.0 * 365


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceParams:
    """What a client or the server says about one request. Immutable; checked when made.

    Raises:
        RequestError: a value is outside its range; `param` names the field.

    Attributes:
        priority: lower is served sooner (vLLM's direction); counts under the policy "priority" alone.
        fairness_key: whose request it is; under the policy "fair", keys share the engine by weight.
        cache_salt: requests share cached prefixes only with those of the same salt.
        deadline_seconds: from arrival; a request that has not ended by then is ended. None: no limit.
        queue_timeout_seconds: a request that has not begun after this long in the queue is given up.
            None: no limit.
    """

    priority: int = 0
    fairness_key: str = ""
    cache_salt: str = ""
    deadline_seconds: float | None = None
    queue_timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise RequestError(f"priority must be a whole number, not {self.priority!r}", param="priority")
        if not -PRIORITY_RANGE <= self.priority < PRIORITY_RANGE:
            raise RequestError(f"priority must fit in 32 bits, not {self.priority}", param="priority")
        for name in ("fairness_key", "cache_salt"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > MAX_KEY_CHARS:
                raise RequestError(
                    f"{name} must be a string of at most {MAX_KEY_CHARS} characters", param=name
                )
        for name in ("deadline_seconds", "queue_timeout_seconds"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name))

    def refuse_without_effect(self, policy: str) -> None:
        """Raises RequestError: a field has a value that this scheduling policy would ignore; names it."""
        if self.priority != 0 and policy != "priority":
            raise RequestError(
                f"priority has no effect under the scheduling policy {policy!r}; leave it out, or run with "
                "the policy 'priority'",
                param="priority",
            )
        if self.fairness_key and policy != "fair":
            raise RequestError(
                f"fairness_key has no effect under the scheduling policy {policy!r}; leave it out, or run "
                "with the policy 'fair'",
                param="fairness_key",
            )


def check_seconds(name: str, seconds: object) -> None:
    """Raises RequestError: no time span above 0 and of at most a year; `param` is `name`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise RequestError(f"{name} must be a finite number, not {seconds!r}", param=name)
    if not 0 < seconds <= MAX_SECONDS:
        raise RequestError(f"{name} must be above 0 and at most a year, not {seconds:g}", param=name)


DEFAULT_SERVICE = ServiceParams()
