"""Ways of sending, on the real engine with a tiny model: who runs beside whom, and what counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from octavo.bench.experiments.experiment import OPEN_LOOP, TimedRequest
from octavo.bench.experiments.policies import ONE_BY_ONE, STATIC_GLOBAL, STATIC_OWN, TGI_LIKE, drive
from octavo.bench.load.metrics import is_whole
from octavo.bench.targets.octavo_in_process import OctavoInProcess
from octavo.bench.targets.target import BenchRequest

LENGTHS = (2, 9, 3, 12, 4, 5)


def load(lengths=LENGTHS, gap_ms: int = 0) -> list[TimedRequest]:
    return [
        TimedRequest(
            due_ns=number * gap_ms * 1_000_000,
            request=BenchRequest(
                request_id=f"r{number}",
                prompt_token_ids=[5 + number, 7, 9],
                prompt_text="",
                num_output_tokens=length,
            ),
        )
        for number, length in enumerate(lengths)
    ]


@pytest.fixture
async def target(tiny_config):
    target = OctavoInProcess(replace(tiny_config))
    await target.start()
    yield target
    await target.stop()


@pytest.mark.parametrize("policy", [OPEN_LOOP, STATIC_GLOBAL, STATIC_OWN, TGI_LIKE, ONE_BY_ONE])
async def test_every_request_gets_exactly_its_tokens(target, policy):
    records = await drive(target, load(), policy, 2)
    assert [one.request_id for one in records] == [f"r{number}" for number in range(6)]
    assert [one.num_output_tokens for one in records] == list(LENGTHS)
    assert all(is_whole(one) for one in records)


async def _largest_batch(target) -> int:
    return max(step.num_running for step in await target.take_steps())


@pytest.mark.parametrize("policy", [STATIC_GLOBAL, STATIC_OWN, TGI_LIKE])
async def test_no_more_rows_run_than_there_are(target, policy):
    await drive(target, load(), policy, 2)
    assert await _largest_batch(target) <= 2


async def test_a_static_batch_answers_when_its_longest_row_has_ended(target):
    records = await drive(target, load(), STATIC_OWN, 2)
    for first in range(0, 6, 2):
        one, other = records[first : first + 2]
        assert one.end_ns == other.end_ns >= max(one.chunk_ns[-1], other.chunk_ns[-1])
        if first:
            assert min(one.sent_ns, other.sent_ns) >= records[first - 1].end_ns


async def test_padding_to_the_longest_of_all_takes_more_steps_than_to_the_batchs_own(target):
    steps = {}
    for policy in (STATIC_GLOBAL, STATIC_OWN, OPEN_LOOP):
        await drive(target, load(), policy, 2)
        steps[policy] = sum(step.num_decode_tokens for step in await target.take_steps())
    # Decoded by every row: 6 x 11; 2 x (8 + 11 + 4); what was asked for, less the first tokens.
    assert steps == {STATIC_GLOBAL: 66, STATIC_OWN: 46, OPEN_LOOP: sum(LENGTHS) - 6}


async def test_one_at_a_time_is_a_closed_loop(target):
    records = await drive(target, load(), ONE_BY_ONE, 0)
    assert await _largest_batch(target) <= 1
    for before, after in pairwise(records):
        assert after.scheduled_ns >= before.end_ns


async def test_an_open_loop_sends_when_due_whoever_runs(target):
    records = await drive(target, load(gap_ms=20), OPEN_LOOP, 0)
    start_ns = records[0].scheduled_ns
    assert [one.scheduled_ns - start_ns for one in records] == [20_000_000 * number for number in range(6)]
    assert all(one.sent_ns >= one.scheduled_ns for one in records)


async def test_newcomers_wait_under_the_tgi_rule_while_few_wait(target):
    """With both rows taken by long requests, and a third that waits: it joins when one of them has ended."""
    records = await drive(target, load((12, 20, 3)), TGI_LIKE, 2)
    assert records[2].sent_ns >= records[0].chunk_ns[-1]


async def test_a_request_that_cannot_run_is_recorded_and_disturbs_nobody(target):
    impossible = load((3, 10_000, 4))
    records = await drive(target, impossible, OPEN_LOOP, 0)
    assert [is_whole(one) for one in records] == [True, False, True]
    assert "together 10003" in records[1].error
    with pytest.raises(ValueError, match="no policy"):
        await drive(target, impossible, "nonsense", 2)
