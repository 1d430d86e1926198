"""The sequences that wait, in order of arrival. Owns order only; changes no sequence."""

from __future__ import annotations

import heapq

from octavo.request import Sequence


class WaitingQueue:
    """First come, first served, by `sequence_id`.

    Ids grow with arrival, so a preempted sequence that comes back finds its old place: before all
    that came after it.
    """

    def __init__(self) -> None:
        self._sequences: dict[int, Sequence] = {}
        # May hold ids that have left since, or an id twice: `peek` drops what `_sequences` lacks.
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.sequence_id in self._sequences

    def push(self, sequence: Sequence) -> None:
        self._sequences[sequence.sequence_id] = sequence
        heapq.heappush(self._heap, sequence.sequence_id)

    def peek(self) -> Sequence | None:
        """The sequence that came first, or None."""
        while self._heap:
            sequence = self._sequences.get(self._heap[0])
            if sequence is not None:
                return sequence
            heapq.heappop(self._heap)
        return None

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        del self._sequences[sequence.sequence_id]


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
