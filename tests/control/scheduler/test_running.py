"""Membership and places of what runs."""

from __future__ import annotations

from octavo.control.scheduler.policy import ByPriority, FirstComeFirstServed
from octavo.control.scheduler.running import RunningSet, is_beam_group, running_sequences
from octavo.request import SequenceStatus
from octavo.sampling_params import SamplingParams
from tests.control.scheduler.requests import add_beam, make_request

BEAMS = SamplingParams(n=2, best_of=4, use_beam_search=True)


def test_a_place_for_each_continuation() -> None:
    running = RunningSet(FirstComeFirstServed())
    request = make_request(params=SamplingParams(n=3))
    for number, sequence in enumerate(request.sequences, start=1):
        running.join(sequence)
        assert (running.num_requests, running.num_sequences, running.num_places) == (1, number, number)
    assert running.places_of(request) == 3
    running.leave(request.sequences[1])
    assert (running.num_requests, running.num_places, running.places_of(request)) == (1, 2, 2)
    running.leave(request.sequences[0])
    running.leave(request.sequences[2])
    assert (running.num_requests, running.num_sequences, running.num_places) == (0, 0, 0)


def test_a_beam_search_has_room_for_all_its_beams_from_the_start() -> None:
    running = RunningSet(FirstComeFirstServed())
    request = make_request(params=BEAMS)
    running.join(request.sequences[0])
    assert (running.num_sequences, running.num_places, is_beam_group(request)) == (1, 4, False)
    running.join(add_beam(request))
    assert (running.num_sequences, running.num_places, is_beam_group(request)) == (2, 4, True)
    assert running.places_of(request) == 4
    running.leave(request.sequences[0])
    assert running.num_places == 4
    running.leave(request.sequences[1])
    assert running.num_places == 0


def test_order_is_the_policys_and_the_last_gives_way() -> None:
    running = RunningSet(ByPriority())
    normal, low, urgent = make_request(), make_request(priority=5), make_request(priority=-5)
    for request in (low, normal, urgent):
        running.join(request.sequences[0])
    assert running.in_order() == [urgent, normal, low]
    assert running.last() is low
    running.leave(low.sequences[0])
    assert running.in_order() == [urgent, normal]


def test_running_are_those_whose_status_says_so() -> None:
    request = make_request(params=SamplingParams(n=2))
    request.sequences[1].status = SequenceStatus.RUNNING
    assert running_sequences(request) == [request.sequences[1]]
