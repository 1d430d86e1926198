"""Workloads: the same seed gives the same requests, within their bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.workload import WorkloadSpec, make_workload
from octavo.errors import ConfigError


def test_the_same_seed_gives_the_same_requests():
    spec = WorkloadSpec(seed=5)
    assert make_workload(spec, range(100)) == make_workload(spec, range(100))
    assert make_workload(spec, range(100)) != make_workload(WorkloadSpec(seed=6), range(100))


def test_lengths_do_not_depend_on_the_vocabulary_nor_on_the_global_generator():
    spec = WorkloadSpec(seed=5)
    first = make_workload(spec, range(100))
    random.seed(1)
    second = make_workload(spec, range(7, 50_000))
    assert [len(one.prompt_token_ids) for one in first] == [len(one.prompt_token_ids) for one in second]
    assert [one.params for one in first] == [one.params for one in second]


def test_the_mean_is_what_was_asked_for():
    spec = WorkloadSpec(num_requests=4000, min_prompt=1, max_prompt=100_000)
    lengths = [len(request.prompt_token_ids) for request in make_workload(spec, range(10))]
    assert 120 < sum(lengths) / len(lengths) < 136


@given(st.integers(0, 2**32), st.integers(1, 50), st.integers(0, 100), st.integers(1, 400))
def test_bounds_hold(seed, low, extra, mean):
    high = low + extra
    spec = WorkloadSpec(
        seed=seed,
        num_requests=20,
        **{f"min_{what}": low for what in ("prompt", "output")},
        **{f"max_{what}": high for what in ("prompt", "output")},
        **{f"mean_{what}": mean for what in ("prompt", "output")},
    )
    for request in make_workload(spec, [3, 4]):
        assert low <= len(request.prompt_token_ids) <= high
        assert low <= request.params.max_tokens <= high
        assert set(request.prompt_token_ids) <= {3, 4}
        assert request.params.is_greedy
        assert request.params.ignore_eos


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"num_requests": 0}, "--num-requests"),
        ({"min_prompt": 9, "max_prompt": 8}, "--min-prompt"),
        ({"min_output": 0}, "--min-output"),
        ({"mean_output": 0}, "--mean-output"),
    ],
)
def test_impossible_workloads_are_refused(fields, line):
    with pytest.raises(ConfigError, match=line):
        WorkloadSpec(**fields)
