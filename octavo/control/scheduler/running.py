"""The requests that hold places in the steps, in the order of a policy. Owns membership and counts only."""

from __future__ import annotations

from octavo.control.scheduler.policy import Policy
from octavo.request import Request, Sequence, SequenceStatus


def num_places(request: Request) -> int:
    """Places that a request takes when one of its sequences joins: a beam search needs room for its beams."""
    return request.params.num_sequences if request.params.use_beam_search else 1


def is_beam_group(request: Request) -> bool:
    """Whether it has several beams, which run, wait and give way together."""
    return len(request.sequences) > 1 and request.params.use_beam_search


class RunningSet:
    """Which requests have running sequences.

    Attributes:
        num_sequences: running sequences.
        num_places: places taken; more than the sequences only where a beam search has fewer beams than
            it may come to have.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._counts: dict[int, int] = {}  # arrival index -> running sequences
        self._requests: dict[int, Request] = {}
        self._order: list[Request] | None = None
        self.num_sequences = 0
        self.num_places = 0

    @property
    def num_requests(self) -> int:
        return len(self._requests)

    def in_order(self) -> list[Request]:
        """All requests, the one that gives way last first. A list of its own only until the next change."""
        if self._order is None:
            self._order = sorted(self._requests.values(), key=self._policy.rank)
        return self._order

    def join(self, sequence: Sequence) -> None:
        request = sequence.request
        index = request.arrival_index
        count = self._counts.get(index, 0)
        self._counts[index] = count + 1
        self.num_sequences += 1
        if count == 0:
            self._requests[index] = request
            self._order = None
        if count == 0 or not request.params.use_beam_search:
            self.num_places += num_places(request)

    def leave(self, sequence: Sequence) -> None:
        request = sequence.request
        index = request.arrival_index
        count = self._counts[index] - 1
        self._counts[index] = count
        self.num_sequences -= 1
        if count == 0:
            del self._counts[index], self._requests[index]
            self._order = None
        if count == 0 or not request.params.use_beam_search:
            self.num_places -= num_places(request)

    def places_of(self, request: Request) -> int:
        """Places that a request takes now."""
        if request.params.use_beam_search:
            return num_places(request)
        return self._counts[request.arrival_index]

    def last(self) -> Request:
        """The request that gives way first."""
        return self.in_order()[-1]


def running_sequences(request: Request) -> list[Sequence]:
    return [one for one in request.sequences if one.status is SequenceStatus.RUNNING]
