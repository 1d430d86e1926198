"""`octavo bench memory`, `sharing`, `prefix` and the others as commands: what they show, keep and refuse."""

from __future__ import annotations

import json
import re

import pytest

TINY = ("--kv-cache-memory", "4MB", "--num-threads", "1")


def test_memory_shows_the_papers_rows_and_draws(run, tmp_path):
    output, figure = tmp_path / "memory.json", tmp_path / "memory.svg"
    flags = ["--num-requests", "40", "--num-slots", "4k", "--block-sizes", "16"]
    exit_code, out, err = run("bench", "memory", *flags, "--output", output, "--figure", figure)
    assert (exit_code, err) == (0, "")
    numbers = json.loads(output.read_text())
    assert [one["name"] for one in numbers["measured"]] == ["max", "pow2", "oracle", "paged-16"]
    for word in ("paged-16", "paper: Orca (Max)", "57.3", "arXiv:2309.06180"):
        assert word in out
    assert figure.read_text().startswith("<?xml")


def test_memory_of_other_traces_shows_what_the_paper_has_of_them(run):
    flags = ["--num-requests", "60", "--num-slots", "2k", "--block-sizes", "16"]
    exit_code, out, _ = run("bench", "memory", *flags, "--trace", "alpaca")
    assert exit_code == 0
    assert "Alpaca-like" in out
    assert "132.4" in out and "57.3" not in out
    exit_code, out, _ = run("bench", "memory", *flags, "--trace", "exponential")
    assert exit_code == 0
    assert "Orca" not in out


def test_sharing_shows_savings_and_the_ratio_of_steps(run, tiny_model, tmp_path):
    output = tmp_path / "sharing.json"
    flags = ["--data-sets", "alpaca", "--widths", "2", "--num-requests", "2", "--num-step-pairs", "3"]
    exit_code, out, err = run("bench", "sharing", tiny_model, *flags, *TINY, "--output", output)
    assert (exit_code, err) == (0, "")
    numbers = json.loads(output.read_text())
    assert len(numbers["savings"]) == 2
    shown = re.search(r"ratio of pairs +([0-9.]+)", out)
    assert shown is not None  # the file is rounded, too, so that the last digit may differ
    assert float(shown[1]) == pytest.approx(numbers["beam_step"]["median_ratio"], abs=0.002)
    assert "37.56 %" in out


def test_prefix_shows_speedups(run, tiny_model, tmp_path):
    output = tmp_path / "prefix.json"
    flags = ["--prefixes", "80", "--num-requests", "3", "--mean-output", "4", "--repeats", "2"]
    exit_code, out, err = run("bench", "prefix", tiny_model, *flags, *TINY, "--output", output)
    assert (exit_code, err) == (0, "")
    (case,) = json.loads(output.read_text())["cases"]
    assert f"{case['throughput_speedup']['mean']:.2f} [" in out
    assert "1.67" in out


def test_blocks_are_recorded_and_drawn_again_from_the_file(run, tiny_model, tmp_path):
    output, figure = tmp_path / "blocks.jsonl", tmp_path / "blocks.svg"
    flags = ["--num-requests", "5", "--mean-output", "6", "--mean-gap", "2", *TINY]
    exit_code, first, err = run("bench", "blocks", tiny_model, *flags, "--output", output)
    assert (exit_code, err) == (0, "")
    assert "█" in first and "shared" in first
    draw = ["--from", output, "--figure", figure, "--colour-by", "request"]
    exit_code, second, err = run("bench", "blocks", *draw)
    assert (exit_code, err) == (0, "")
    assert second == first
    assert "by request" in figure.read_text()


def test_plan_step_shows_every_kind(run, tmp_path):
    output = tmp_path / "plan_step.json"
    exit_code, out, err = run("bench", "plan-step", "--sizes", "4", "--num-steps", "3", "--output", output)
    assert (exit_code, err) == (0, "")
    assert len(json.loads(output.read_text())["costs"]) == 6
    assert "4 sequences, mixed, fair" in out


def test_cpu_measures_every_kind_of_work(run, tiny_model, tmp_path):
    output = tmp_path / "cpu.json"
    flags = ["--repeats", "2", "--num-requests", "2", "--prefill", "64", "--streams", "1,3"]
    flags += ["--num-decoded", "4", "--context", "8", "--output", str(output)]
    exit_code, out, err = run("bench", "cpu", tiny_model, *flags, *TINY)
    assert (exit_code, err) == (0, "")
    report = json.loads(output.read_text())
    names = ["mixed, 2 at once", "prefill 64", "decode, 1 streams", "decode, 3 streams"]
    names += ["mixed, 2 at once, through HTTP", "start to ready"]
    assert [work["name"] for work in report["works"]] == names
    for work in report["works"]:
        assert len(work["values"]) == 2
        assert 0 < work["min"] <= work["median"] <= work["max"]
        assert work["name"] in out
    assert {"cpu", "num_cores"} <= report["machine"].keys()


def test_quality_shows_and_keeps_its_numbers(run, tiny_model, tmp_path):
    output = tmp_path / "quality.json"
    flags = ["--num-tokens", "60", "--window", "40", "--num-threads", "1", "--output", output]
    exit_code, out, err = run("bench", "quality", tiny_model, *flags)
    assert (exit_code, err) == (0, "")
    numbers = json.loads(output.read_text())
    assert f"{numbers['reference']['perplexity']:.3f}" in out
    assert [form["kv"] for form in numbers["forms"]][-1] == "float32"
    assert "Python Software Foundation License" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["memory", "--block-sizes", "0"], "--block-sizes"),
        (["memory", "--num-requests", "2"], "no request had to wait"),
        (["memory", "--figure", "absent/figure.svg"], "--figure"),
        (["memory", "--output", "absent/numbers.json"], "--output"),
        (["sharing", "--widths", "1"], "--widths"),
        (["sharing", "--policy", "fair"], "unknown argument"),
        (["prefix", "--no-prefix-caching"], "unknown argument"),
        (["prefix", "--repeats", "0"], "--repeats"),
        (["blocks", "--colour-by", "request"], "--colour-by"),
        (["blocks", "--from", "absent.jsonl"], "No such file"),
        (["blocks", "--from", "absent.jsonl", "--every", "2"], "--every has no effect"),
        (["blocks", "--from", "absent.jsonl", "--kv-cache-memory", "1MB"], "--kv-cache-memory has no effect"),
        (["blocks", "--mean-gap", "0"], "--mean-gap"),
        (["plan-step", "--num-steps", "0"], "--num-steps"),
        (["plan-step", "--sizes", "many"], "--sizes"),
        (["cpu", "--repeats", "0"], "--repeats"),
        (["quality", "--num-tokens", "0"], "--num-tokens"),
        (["quality", "--window", "1"], "--window"),
        (["quality", "--text", "absent.txt"], "absent.txt"),
        (["quality", "--kv-cache-dtypes", "int9"], "--kv-cache-dtypes"),
        (["quality", "--policy", "fair"], "unknown argument"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(run, arguments, line):
    exit_code, out, err = run("bench", *arguments)
    assert (exit_code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
