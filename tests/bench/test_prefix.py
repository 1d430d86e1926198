"""The prefix bench: the same requests with and without the cache, and hits that can be worked out."""

from __future__ import annotations

import json

import pytest

from octavo.bench.prefix import make_requests, run_prefix
from octavo.bench.prefix_spec import PrefixSpec
from octavo.errors import ConfigError

SPEC = PrefixSpec(prefixes=(40,), num_requests=6, mean_input=8, mean_output=6, repeats=2)


@pytest.fixture(scope="module")
def report(tiny_config):
    return run_prefix(tiny_config, SPEC)


def test_only_the_cache_makes_a_difference(report):
    (case,) = report.cases
    assert len(case.on) == len(case.off) == 2
    for on, off in zip(case.on, case.off, strict=True):
        assert (on.num_prompt_tokens, on.num_output_tokens) == (off.num_prompt_tokens, off.num_output_tokens)
        assert off.hit_rate == 0
        # All but the first request find the whole prefix: its 2 full blocks, and the 8 tokens after them.
        least = 5 * 40 / on.num_prompt_tokens
        assert least <= on.hit_rate < least + 0.1
        assert len(on.ttft_ms) == len(off.ttft_ms) == 6
        assert max(on.ttft_ms) <= on.run_seconds * 1e3


def test_the_json_has_speedups_with_intervals(report):
    (case,) = json.loads(json.dumps(report.as_json()))["cases"]
    speedup = case["throughput_speedup"]
    assert speedup["low"] <= speedup["mean"] <= speedup["high"]
    assert speedup["num_pairs"] == 2
    assert case["paper_speedup_over_orca_oracle"] is None
    assert case["on"][0]["hit_rate"] > case["off"][0]["hit_rate"] == 0


def test_repeats_have_other_tokens_and_the_same_prefix_within():
    first, again, second = (make_requests(SPEC, 40, repeat, list(range(90))) for repeat in (0, 0, 1))
    assert first == again != second
    assert len({tuple(one.prompt_token_ids[:40]) for one in first}) == 1
    assert len({tuple(one.prompt_token_ids[:41]) for one in first}) > 1


def test_impossible_settings_are_refused():
    for name in ("num_requests", "mean_input", "mean_output", "repeats"):
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
            PrefixSpec(**{name: 0})
