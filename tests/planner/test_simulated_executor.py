"""The simulated executor obeys the seam: an engine over it serves requests to their end."""

from __future__ import annotations

import pytest

from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.scheduler import Scheduler
from octavo.planner.simulated_executor import SimulatedExecutor
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams
from octavo.step import SampleRequest, SequenceSlice, StepPlan


def run(params: SamplingParams, num_prompt_tokens: int = 5) -> dict[int, list[int]]:
    engine = Engine(
        Scheduler(BlockManager(64, 4), max_num_seqs=8, max_num_batched_tokens=8),
        SimulatedExecutor(50),
        eos_token_ids=(),
        vocab_size=50,
        max_model_len=64,
        max_queued_requests=1,
    )
    engine.submit("a", list(range(num_prompt_tokens)), params)
    outputs: dict[int, list[int]] = {}
    while engine.has_work:
        for delta in engine.step():
            assert delta.finish_reason in (None, FinishReason.LENGTH)
            outputs.setdefault(delta.index, []).extend(delta.token_ids)
    return outputs


def test_it_samples_by_seed_and_position_alone():
    params = SamplingParams(n=3, seed=7, max_tokens=6)
    outputs = run(params)
    assert sorted(map(len, outputs.values())) == [6, 6, 6]
    assert outputs == run(params)
    assert len({tuple(tokens) for tokens in outputs.values()}) == 3
    assert outputs[0] != run(SamplingParams(n=3, seed=8, max_tokens=6))[0]


def test_it_gives_candidates_to_beams():
    outputs = run(SamplingParams(n=2, use_beam_search=True, temperature=0.0, max_tokens=5))
    assert sorted(map(len, outputs.values())) == [5, 5]


def test_it_refuses_what_it_has_not_computed():
    executor = SimulatedExecutor(50)
    sample = SampleRequest(SamplingParams(), 0, 1)
    executor.submit(StepPlan(0, [SequenceSlice(0, [1], 0, [0], sample, prompt_logprob_targets=[2])]))
    with pytest.raises(ValueError, match="log-probabilities"):
        executor.collect()
