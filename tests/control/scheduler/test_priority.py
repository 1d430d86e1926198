"""Under the policy "priority", one who comes later and is more urgent takes blocks from those who run."""

from __future__ import annotations

import pytest

from octavo.control.scheduler.policy import ByPriority, FirstComeFirstServed, Policy
from octavo.control.scheduler.preemption import PreemptionCost
from octavo.request import Request, SequenceStatus
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams
from tests.control.fake_engine import EOS_TOKEN_ID, VOCAB_SIZE, FakeEngine
from tests.fake_executor import reference_output

PARAMS = SamplingParams(max_tokens=12, ignore_eos=True, seed=3)


class AlwaysSwap(PreemptionCost):
    def prefers_swap(self, num_tokens: int, num_blocks: int) -> bool:
        return True


def make_fake(num_blocks: int = 12, policy: Policy | None = None, num_host_blocks: int = 0) -> FakeEngine:
    return FakeEngine(
        num_blocks=num_blocks,
        block_size=4,
        policy=policy or ByPriority(),
        num_host_blocks=num_host_blocks,
        preemption_cost=AlwaysSwap(1) if num_host_blocks else None,
    )


def submit(fake: FakeEngine, name: str, priority: int, length: int = 10) -> Request:
    prompt = [len(name) * 17 + position for position in range(length)]
    service = ServiceParams(priority=priority)
    return fake.engine.submit(name, prompt, PARAMS, service=service)


def check_outputs(fake: FakeEngine, requests: list[Request]) -> None:
    outputs = fake.run()
    for request in requests:
        assert outputs[request.request_id, 0].token_ids == reference_output(
            request.prompt_token_ids,
            PARAMS,
            max_tokens=12,
            index=0,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=(EOS_TOKEN_ID,),
        )


def status(request: Request) -> SequenceStatus:
    return request.sequences[0].status


@pytest.mark.parametrize("num_host_blocks", [0, 12])
def test_the_least_urgent_gives_way_first_and_comes_back(num_host_blocks: int) -> None:
    fake = make_fake(num_host_blocks=num_host_blocks)
    low, lower = submit(fake, "low", 1), submit(fake, "lower", 2)
    fake.step()
    assert status(low) is status(lower) is SequenceStatus.RUNNING
    urgent = submit(fake, "urgent", 0, length=16)
    fake.step()
    lost = SequenceStatus.SWAPPED if num_host_blocks else SequenceStatus.PREEMPTED
    assert (status(urgent), status(low), status(lower)) == (
        SequenceStatus.RUNNING,
        SequenceStatus.RUNNING,
        lost,
    )
    assert len(fake.outputs["urgent", 0].token_ids) == 1, "it ran in the step that it came to"
    check_outputs(fake, [low, lower, urgent])


def test_nobody_gives_way_where_there_is_room() -> None:
    fake = make_fake(num_blocks=30)
    low = submit(fake, "low", 1)
    fake.step()
    urgent = submit(fake, "urgent", 0)
    fake.step()
    assert status(low) is status(urgent) is SequenceStatus.RUNNING
    assert low.sequences[0].num_preemptions == 0
    check_outputs(fake, [low, urgent])


def test_equals_wait_for_each_other() -> None:
    fake = make_fake()
    first, second = submit(fake, "first", 1), submit(fake, "second", 1)
    fake.step()
    third = submit(fake, "third", 1, length=16)
    fake.step()
    assert status(third) is SequenceStatus.WAITING
    check_outputs(fake, [first, second, third])


def test_nobody_gives_way_in_vain() -> None:
    """Even all of the less urgent together hold too little for it: the more urgent one keeps the rest."""
    fake = make_fake()
    most_urgent, low = submit(fake, "most", -1, length=20), submit(fake, "low", 1, length=4)
    fake.step()
    urgent = submit(fake, "urgent", 0, length=28)
    fake.step()
    assert status(low) is SequenceStatus.RUNNING
    assert status(urgent) is SequenceStatus.WAITING
    check_outputs(fake, [most_urgent, low, urgent])


def test_urgency_orders_those_who_wait_under_its_policy_alone() -> None:
    for policy, order in ((ByPriority(), ["c", "b", "a"]), (FirstComeFirstServed(), ["a", "b", "c"])):
        fake = FakeEngine(max_num_seqs=1, policy=policy)
        for priority, name in enumerate("abc"):
            submit(fake, name, -priority)
        started: list[str] = []
        while fake.engine.has_work:
            started += [one.request_id for one in fake.step() if one.request_id not in started]
        assert started == order
