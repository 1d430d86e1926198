"""The plan-step bench times steps of the size that it says, and reports all of its samples."""

from __future__ import annotations

import json

import pytest

from octavo.bench.plan_step import KINDS, measure_plan_step, run_plan_step
from octavo.errors import ConfigError


@pytest.mark.parametrize("policy", ["fcfs", "priority", "fair"])
def test_steps_are_full(policy):
    cost = measure_plan_step(24, policy=policy, num_steps=30)
    assert (cost.mean_sequences, cost.mean_prefill_tokens) == (24, 0)
    assert len(cost.wall_ms) == len(cost.cpu_ms) == 30
    assert all(wall > 0 for wall in cost.wall_ms)


@pytest.mark.parametrize("policy", ["fcfs", "priority", "fair"])
def test_mixed_steps_hold_prompts_too(policy):
    cost = measure_plan_step(24, mix="mixed", policy=policy, num_steps=60)
    assert 20 <= cost.mean_sequences <= 30
    assert cost.mean_prefill_tokens > 50


def test_the_results_hold_every_kind():
    numbers = json.loads(json.dumps(run_plan_step([4, 8], num_steps=3)))
    assert len(numbers["costs"]) == 2 * len(KINDS)
    for cost in numbers["costs"]:
        assert cost["min_wall_ms"] <= cost["median_wall_ms"] <= cost["p90_wall_ms"]
        assert len(cost["wall_ms"]) == cost["num_steps"] == 3
    assert {"cpu", "num_cores", "python"} <= numbers["machine"].keys()


def test_impossible_measurements_are_refused():
    for fields in ({"mix": "none"}, {"policy": "none"}, {"num_steps": 0}):
        with pytest.raises(ConfigError):
            measure_plan_step(4, **fields)
    with pytest.raises(ConfigError):
        measure_plan_step(0)
