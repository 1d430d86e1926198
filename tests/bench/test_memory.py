"""The memory bench: both sides are scheduled alike, the shares add up, and the paper's ordering holds."""

from __future__ import annotations

import pytest

from octavo.bench import paper
from octavo.bench.contiguous import ContiguousRun, Lengths
from octavo.bench.memory import PagedRun, run_memory
from octavo.bench.memory_spec import MemorySpec
from octavo.bench.memory_use import SlotUse, UseMeter
from octavo.bench.traces import TRACES, make_trace
from octavo.bench.workload import make_workload
from octavo.errors import ConfigError, ContextLengthError


@pytest.fixture(scope="module")
def report():
    return run_memory(MemorySpec(num_requests=80, seed=1))


def lengths_of(requests) -> list[Lengths]:
    return [Lengths(len(one.prompt_token_ids), one.params.max_tokens) for one in requests]


def test_with_memory_for_all_both_sides_take_the_same_steps():
    """What differs in the report is then due to memory alone."""
    trace = make_trace("exponential", num_requests=30, seed=3, max_model_len=512)
    requests = make_workload(trace.workload, range(100))
    limits = {"num_slots": 2**17, "max_model_len": 512, "max_num_seqs": 12, "max_num_batched_tokens": 64}
    paged = PagedRun(MemorySpec(**limits), requests, 16)
    contiguous = ContiguousRun(lengths_of(requests), reservation="oracle", **limits)
    while contiguous.has_work:
        contiguous.step()
        paged.engine.step()
        use, paged_use = contiguous.slot_use(), paged.slot_use()
        assert use.states == paged_use.states
        assert contiguous.num_running == paged.engine.num_running
        assert contiguous.num_waiting == paged.engine.num_waiting
        assert use.total == paged_use.total == limits["num_slots"]
    assert not paged.engine.has_work


def test_what_is_counted_of_paged_blocks_is_what_the_cache_says():
    requests = make_workload(
        make_trace("alpaca", num_requests=20, seed=0, max_model_len=256).workload, range(9)
    )
    run = PagedRun(MemorySpec(num_slots=512, max_model_len=256, max_num_seqs=8), requests, 16)
    while run.engine.has_work:
        run.engine.step()
        use, trace = run.slot_use(), run.engine.last_step
        assert use.states == trace.used_slots
        assert use.reserved + use.internal == trace.empty_slots
        assert use.free == trace.blocks_free * 16


def test_the_papers_ordering_and_the_bound_on_waste(report):
    by_name = {use.name: use for use in report.uses}
    assert by_name["max"].waste > by_name["pow2"].waste > by_name["oracle"].waste > 0.5
    assert by_name["paged-16"].waste < 0.04
    assert by_name["paged-8"].waste < by_name["paged-16"].waste < by_name["paged-64"].waste
    assert by_name["oracle"].internal == 0
    assert by_name["max"].mean_running < by_name["oracle"].mean_running < by_name["paged-16"].mean_running
    # Seven runs of 2,048 fit into 15,700 slots: the paper's figure 13 has 7.00 for Orca (Max).
    assert by_name["max"].mean_running == pytest.approx(7.0, abs=0.1)
    for use in report.uses:
        assert use.states + use.waste + use.free == pytest.approx(1.0)
        assert use.num_steps > 50


def test_the_json_has_the_papers_numbers_beside(report):
    numbers = report.as_json()
    assert [one["name"] for one in numbers["measured"]][:4] == ["max", "pow2", "oracle", "paged-8"]
    assert numbers["paper"]["figure_2_percent"]["vLLM"]["token_states"] == 96.3
    assert {"cpu", "num_cores"} <= numbers["machine"].keys()


def test_the_same_seed_gives_the_same_report(report):
    (again,) = run_memory(MemorySpec(num_requests=80, seed=1, block_sizes=(64,))).uses[-1:]
    assert again == report.uses[-1]


def test_a_meter_refuses_slots_that_do_not_add_up():
    meter = UseMeter(10)
    meter.add(SlotUse(states=4, free=6), 1)
    with pytest.raises(ValueError, match="9 slots"):
        meter.add(SlotUse(states=3, free=6), 1)
    means = meter.means("x", num_all_steps=5)
    assert (means.states, means.free, means.mean_running, means.num_steps) == (0.4, 0.6, 1.0, 1)


def test_the_default_memory_is_the_papers():
    assert MemorySpec().num_slots == paper.num_kv_slots("13B")


def test_traces_have_the_papers_means():
    for name, data_set in (("sharegpt", "ShareGPT"), ("alpaca", "Alpaca")):
        workload = make_trace(name, num_requests=1, seed=0, max_model_len=2048).workload
        mean_prompt, mean_output = paper.mean_tokens(data_set)
        assert (workload.mean_prompt, workload.mean_output) == (round(mean_prompt), round(mean_output))
    assert set(TRACES) == {"exponential", "sharegpt", "alpaca"}
    with pytest.raises(ConfigError, match="--trace"):
        make_trace("other", num_requests=1, seed=0, max_model_len=2048)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"max_num_seqs": 0}, "--max-num-seqs"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "--max-num-seqs"),
        ({"num_slots": 100}, "--num-slots"),
    ],
)
def test_impossible_settings_are_refused(fields, line):
    with pytest.raises(ConfigError, match=line):
        MemorySpec(**fields)


def test_a_trace_that_leaves_room_is_refused_and_not_reported_as_free_of_waste():
    with pytest.raises(ConfigError, match="no request had to wait"):
        run_memory(MemorySpec(num_requests=3))


def test_a_request_that_can_never_be_placed_is_refused():
    with pytest.raises(ConfigError, match="no run of"):
        ContiguousRun(
            [Lengths(600, 600)],
            reservation="oracle",
            num_slots=2047,
            max_model_len=2048,
            max_num_seqs=1,
            max_num_batched_tokens=1,
        )
    requests = make_workload(
        make_trace("sharegpt", num_requests=9, seed=0, max_model_len=64).workload, range(9)
    )
    with pytest.raises(ContextLengthError):
        PagedRun(MemorySpec(num_slots=64, max_model_len=32), requests, 16)
