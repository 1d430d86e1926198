"""Lengths and arrivals have the statistics that theory and the traces give them; every data file is whole."""

from __future__ import annotations

import csv
import json
import random
import statistics
from importlib import resources

import pytest

from octavo.bench.experiments.lengths import (
    TRACES,
    arrival_seconds,
    capped_exponential,
    expected,
    gaps_seconds,
    quantile_length,
    trace_table,
)
from octavo.bench.experiments.requests import fit

DATA = resources.files("octavo.bench").joinpath("data")


@pytest.mark.parametrize("cap", [32, 128, 512, 1536])
def test_capped_lengths_have_the_expected_mean_spread_and_waste_of_static_batches(cap):
    draw = random.Random(1)
    lengths = [capped_exponential(draw, mean=128, cap=cap) for _ in range(40_000)]
    theory = expected(cap)
    assert min(lengths) >= 1 and max(lengths) <= cap
    assert statistics.fmean(lengths) == pytest.approx(theory["mean"], rel=0.02)
    assert statistics.stdev(lengths) == pytest.approx(theory["sd"], rel=0.03)
    longest = [max(lengths[first : first + 8]) for first in range(0, len(lengths), 8)]
    efficiency = statistics.fmean(lengths) / statistics.fmean(longest)
    assert efficiency == pytest.approx(theory["static_decode_efficiency_B8"], rel=0.02)


def test_other_caps_have_no_theory():
    assert expected(777) is None


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("what", ["prompt", "response"])
def test_trace_lengths_have_the_traces_mean(trace, what):
    facts = json.loads(DATA.joinpath("length_and_arrival_fits.json").read_text())[trace][what]
    draw, table = random.Random(2), trace_table(trace, what)
    drawn = [quantile_length(draw, table) for _ in range(40_000)]
    # Between its 99th percentile and its longest a table is a straight line: long tails are drawn too heavy.
    assert statistics.fmean(drawn) == pytest.approx(facts["mean"], rel=0.25)
    assert statistics.median(drawn) == pytest.approx(facts["p50"], rel=0.06)


@pytest.mark.parametrize("shape", [0.35, 1.0, 4.0])
def test_gaps_have_their_rate_and_burstiness(shape):
    gaps = gaps_seconds(random.Random(3), rate=5.0, shape=shape, count=40_000)
    assert statistics.fmean(gaps) == pytest.approx(0.2, rel=0.03)
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(shape**-0.5, rel=0.04)


def test_the_first_arrival_is_at_once_and_the_others_follow():
    times = arrival_seconds(random.Random(4), rate=2.0, shape=1.0, count=5)
    assert len(times) == 5 and times[0] == 0.0 and times == sorted(times)


def test_lengths_are_cut_to_the_context():
    assert fit(100, 50, 1000) == (100, 50)
    assert fit(5000, 900, 1000) == (500, 500)
    assert fit(0, 0, 10) == (1, 1)


def test_every_data_file_can_be_read_and_stands_in_the_readme():
    readme = DATA.joinpath("README.md").read_text()
    for file in DATA.iterdir():
        if file.name.endswith(".json"):
            assert json.loads(file.read_text())
        elif file.name.endswith(".csv"):
            rows = list(csv.reader(file.read_text().splitlines()))
            assert len(rows) > 2 and len({len(row) for row in rows}) == 1
        else:
            continue
        assert f"`{file.name}`" in readme


@pytest.mark.parametrize("trace", TRACES)
def test_quantile_tables_are_whole_and_never_fall(trace):
    for what in ("prompt", "response"):
        table = trace_table(trace, what)
        assert len(table) == 101 and table == sorted(table)
