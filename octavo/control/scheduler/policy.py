"""Who comes first: the orders in which requests wait, run, and give way. Pure decisions, no queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from octavo.request import Request

# A sampled token stands for a pass of its own, a prompt token for a share of one: the weights of
# "Fairness in Serving Large Language Models" (OSDI 2024).
PROMPT_TOKEN_COST = 1.0
OUTPUT_TOKEN_COST = 2.0

Rank = tuple[int, ...]


class Policy(Protocol):
    """An order of requests. Lower ranks come first; the highest gives way first when blocks run out."""

    displaces: bool
    """Whether a waiting request may take the place of running ones that come after it."""

    def rank(self, request: Request) -> Rank:
        """Its place among the running and among those of its key that wait. Never changes."""

    def key(self, request: Request) -> str:
        """Whose queue it waits in."""

    def standing(self, key: str) -> float:
        """The queue with the lowest standing has the next turn."""

    def arrive(self, key: str, busy_keys: Mapping[str, int]) -> None:
        """A request of this key arrives; `busy_keys` have live requests."""

    def charge(self, request: Request, num_prompt_tokens: int, num_output_tokens: int) -> None:
        """Tokens were computed for a request."""


class FirstComeFirstServed:
    """By arrival."""

    displaces = False

    def rank(self, request: Request) -> Rank:
        return (request.arrival_index,)

    def key(self, request: Request) -> str:
        return ""

    def standing(self, key: str) -> float:
        return 0.0

    def arrive(self, key: str, busy_keys: Mapping[str, int]) -> None:
        pass

    def charge(self, request: Request, num_prompt_tokens: int, num_output_tokens: int) -> None:
        pass


class ByPriority(FirstComeFirstServed):
    """By the request's priority, the lowest number first; among equals by arrival."""

    displaces = True

    def rank(self, request: Request) -> Rank:
        return (request.service.priority, request.arrival_index)


class FairShare(FirstComeFirstServed):
    """Keys have turns by the tokens that they were served, over their weights; within a key by arrival.

    A counter for each key grows with its tokens, and the key with the lowest has the next turn: the
    virtual token counter of OSDI 2024, a form of virtual-time fair queueing. A key that comes back from
    idleness begins at the lowest counter of the busy ones: it has no claim to time in which it did not ask.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._counters: defaultdict[str, float] = defaultdict(float)

    def key(self, request: Request) -> str:
        return request.service.fairness_key

    def standing(self, key: str) -> float:
        return self._counters[key]

    def arrive(self, key: str, busy_keys: Mapping[str, int]) -> None:
        if busy_keys.get(key, 0) or not busy_keys:
            return
        lowest = min(self._counters[busy] for busy in busy_keys)
        self._counters[key] = max(self._counters[key], lowest)

    def charge(self, request: Request, num_prompt_tokens: int, num_output_tokens: int) -> None:
        cost = num_prompt_tokens * PROMPT_TOKEN_COST + num_output_tokens * OUTPUT_TOKEN_COST
        key = request.service.fairness_key
        self._counters[key] += cost / self._weights.get(key, 1.0)


def make_policy(name: str, weights: Mapping[str, float]) -> Policy:
    """The policy of a `--policy` setting."""
    if name == "priority":
        return ByPriority()
    return FairShare(weights) if name == "fair" else FirstComeFirstServed()
