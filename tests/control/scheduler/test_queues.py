"""Order of waiting."""

from octavo.control.scheduler.policy import FairShare, FirstComeFirstServed
from octavo.control.scheduler.queues import PromptFollowers, QueuedRequests, WaitingQueue
from octavo.request import Request, Sequence
from octavo.sampling_params import SamplingParams
from tests.control.scheduler.requests import make_request


def make_sequences(count: int) -> list[Sequence]:
    request = Request("r", [1], SamplingParams(), max_tokens=1, arrival_seconds=0.0, seed=0)
    return [Sequence(index, request, index, [1], 1) for index in range(count)]


def test_the_queue_serves_by_arrival_even_those_who_come_back():
    queue = WaitingQueue(FirstComeFirstServed())
    first, second, third = make_sequences(3)
    queue.push(second)
    queue.push(third)
    queue.push(first)
    assert queue.peek() is first
    queue.remove(first)
    queue.remove(second)
    assert queue.peek() is third
    queue.push(second)
    assert (queue.peek(), len(queue), first in queue) == (second, 2, False)


def test_leaving_and_coming_back_many_times_leaves_one_place():
    queue = WaitingQueue(FirstComeFirstServed())
    first, second = make_sequences(2)
    queue.push(second)
    for _ in range(5):
        queue.push(first)
        queue.remove(first)
    queue.push(first)
    queue.remove(first)
    assert (queue.peek(), len(queue)) == (second, 1)
    queue.remove(second)
    assert (queue.peek(), len(queue)) == (None, 0)


def test_followers_wait_for_their_leader_only():
    followers = PromptFollowers()
    leader, one, two, stranger = make_sequences(4)
    followers.hold(leader, [one, two])
    assert followers.release(stranger) == []
    followers.remove(one)
    followers.remove(stranger)
    assert len(followers) == 1
    assert followers.release(leader) == [two]
    assert len(followers) == 0


def test_keys_have_queues_of_their_own_and_the_lowest_standing_its_turn():
    policy = FairShare({})
    queue = WaitingQueue(policy)
    first, second = make_request(fairness_key="a"), make_request(fairness_key="a")
    other = make_request(fairness_key="b")
    for request in (second, first, other):
        queue.push(request.sequences[0])
    assert queue.peek() is first.sequences[0], "equal standings: by arrival"
    policy.charge(first, 10, 0)
    assert queue.peek() is other.sequences[0]
    queue.remove(other.sequences[0])
    assert queue.peek() is first.sequences[0]
    policy.charge(other, 20, 0)
    queue.push(other.sequences[0])
    assert queue.peek() is first.sequences[0]


def test_the_queue_counts_requests_of_which_nothing_has_run_and_their_tokens():
    queued = QueuedRequests()
    first, second = make_request([1] * 10), make_request([1] * 5)
    queued.add(first, "a")
    queued.add(second, "a")
    assert (len(queued), queued.num_tokens, queued.busy_keys["a"]) == (2, 15, 2)
    queued.start(first)
    queued.start(first)
    assert (len(queued), queued.num_tokens, queued.busy_keys["a"]) == (1, 5, 2)
    queued.end(second, "a")
    assert (len(queued), queued.num_tokens, queued.busy_keys["a"]) == (0, 0, 1)
    queued.end(first, "a")
    assert not queued.busy_keys
