"""The sharing bench: savings follow the paper's definition, and beam steps are compared pair by pair."""

from __future__ import annotations

import json

import pytest

from octavo.bench.sharing import run_sharing
from octavo.bench.sharing_spec import SharingSpec, parse_data_sets
from octavo.errors import ConfigError

SPEC = SharingSpec(data_sets=("alpaca",), widths=(2, 4), num_requests=4, num_step_pairs=5)


@pytest.fixture(scope="module")
def report(tiny_config):
    done: list[None] = []
    found = run_sharing(tiny_config, SPEC, on_done=lambda: done.append(None))
    assert len(done) == 5
    return found


def test_beams_share_more_than_samples(report):
    saved = {(one.method, one.width): one.mean for one in report.savings}
    assert set(saved) == {("parallel", 2), ("parallel", 4), ("beam", 2), ("beam", 4)}
    assert 0 < saved["parallel", 2] < saved["parallel", 4] < 0.75
    for width in (2, 4):
        # Of `width` tables that are wholly shared, all but one are saved.
        assert saved["parallel", width] < saved["beam", width] <= 1 - 1 / width
    assert all(len(one.by_request) == 4 for one in report.savings)


def test_the_papers_numbers_stand_beside(report):
    numbers = json.loads(json.dumps(report.as_json()))
    printed = {(one["method"], one["width"]): one["paper_percent"] for one in numbers["savings"]}
    assert printed["parallel", 2] == "6.09"
    assert printed["beam", 4] == "53.13"
    assert "Alpaca" in numbers["what_differs"]


def test_beam_steps_come_in_pairs(report):
    cost = report.beam_step
    assert (cost.width, len(cost.beam_ms), len(cost.decode_ms)) == (4, 5, 5)
    assert min(cost.ratios) <= cost.ratio <= max(cost.ratios)
    assert cost.ratio > 0


def test_impossible_settings_are_refused():
    assert parse_data_sets("sharegpt, alpaca") == ("sharegpt", "alpaca")
    with pytest.raises(ConfigError, match="alpaca and sharegpt"):
        parse_data_sets("alpaca,other")
    for fields in ({"widths": (1, 2)}, {"step_width": 1}, {"num_requests": 0}, {"num_step_pairs": 1}):
        with pytest.raises(ConfigError):
            SharingSpec(**fields)
