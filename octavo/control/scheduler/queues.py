"""The sequences that wait, in the order of a policy. Owns order only; changes no sequence."""

from __future__ import annotations

import heapq
from collections import Counter

from octavo.control.scheduler.policy import Policy, Rank
from octavo.request import Request, Sequence


class WaitingQueue:
    """A heap of sequences for each key of the policy.

    Ranks never change, so a preempted sequence that comes back finds its old place: before all that
    came after it.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._sequences: dict[int, Sequence] = {}
        # Heaps may hold ids that have left since, or an id twice: `peek` drops what `_sequences` lacks.
        self._heaps: dict[str, list[tuple[Rank, int]]] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.sequence_id in self._sequences

    def push(self, sequence: Sequence) -> None:
        self._sequences[sequence.sequence_id] = sequence
        heap = self._heaps.setdefault(self._policy.key(sequence.request), [])
        heapq.heappush(heap, (self._policy.rank(sequence.request), sequence.sequence_id))

    def peek(self) -> Sequence | None:
        """The sequence whose turn it is, or None."""
        heads = {key: head for key in list(self._heaps) if (head := self._head(key)) is not None}
        if not heads:
            return None
        if len(heads) == 1:
            return next(iter(heads.values()))
        standing, rank = self._policy.standing, self._policy.rank
        return heads[min(heads, key=lambda key: (standing(key), rank(heads[key].request)))]

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        del self._sequences[sequence.sequence_id]

    def _head(self, key: str) -> Sequence | None:
        heap = self._heaps[key]
        while heap:
            sequence = self._sequences.get(heap[0][1])
            if sequence is not None:
                return sequence
            heapq.heappop(heap)
        del self._heaps[key]
        return None


class PromptFollowers:
    """Sequences that wait for another one of their request (the leader) to compute their prompt."""

    def __init__(self) -> None:
        self._followers: dict[int, list[Sequence]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._followers.values()))

    def hold(self, leader: Sequence, followers: list[Sequence]) -> None:
        if followers:
            self._followers[leader.sequence_id] = followers

    def release(self, leader: Sequence) -> list[Sequence]:
        """The leader's followers, who wait for it no longer; none for any other sequence."""
        return self._followers.pop(leader.sequence_id, [])

    def remove(self, sequence: Sequence) -> None:
        """Take a follower out, if it is one."""
        for leader_id, followers in self._followers.items():
            if sequence in followers:
                followers.remove(sequence)
                if not followers:
                    del self._followers[leader_id]
                return


class QueuedRequests:
    """The requests of which nothing has run yet, and the live requests of each key."""

    def __init__(self) -> None:
        self._unstarted: dict[str, int] = {}  # request id -> prompt tokens
        self.num_tokens = 0
        self.busy_keys: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._unstarted)

    def add(self, request: Request, key: str) -> None:
        num_tokens = len(request.prompt_token_ids)
        self._unstarted[request.request_id] = num_tokens
        self.num_tokens += num_tokens
        self.busy_keys[key] += 1

    def start(self, request: Request) -> None:
        """It has begun, or ended without. Harmless if that was known."""
        self.num_tokens -= self._unstarted.pop(request.request_id, 0)

    def end(self, request: Request, key: str) -> None:
        """It is alive no longer."""
        self.start(request)
        self.busy_keys[key] -= 1
        if not self.busy_keys[key]:
            del self.busy_keys[key]
