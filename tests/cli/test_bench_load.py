"""`octavo bench serve`, `sweep`, `replay`, `calibrate`, `latency`, `workload`, `compare` as commands."""

from __future__ import annotations

import json

import pytest

from octavo.bench.calibrate import MockProcess
from octavo.bench.load.mock_server import MockTiming

TINY = ("--kv-cache-memory", "4MB", "--num-threads", "1")


@pytest.fixture
def server():
    """A server that answers after 30 ms, a token every 4 ms."""
    process = MockProcess(MockTiming(ttft_ms=30, gap_ms=4))
    yield process
    process.kill()


def test_serve_shows_and_keeps_its_numbers(run, tiny_model, server, tmp_path):
    output = tmp_path / "serve.json"
    flags = [
        "--base-url",
        server.url,
        "--num-prompts",
        "60",
        "--request-rate",
        "200",
        "--random-output-len",
        "4",
    ]
    flags += ["--random-input-len", "8", "--goodput", "ttft:5000", "--metric-percentiles", "50,95,99"]
    exit_code, out, err = run("bench", "serve", tiny_model, *flags, "--output", output)
    assert (exit_code, err) == (0, "")
    report = json.loads(output.read_text())
    metrics = report["metrics"]
    assert metrics["num_errors"] == 0
    assert metrics["goodput_req_s"] == metrics["req_s"]
    assert metrics["ttft_ms"]["median"] >= 30
    assert len(report["requests"]) == 60
    for word in ("tok_out_steady_s", "goodput_req_s", "n below 299", "ITL (vLLM)", "200 requests/s, Poisson"):
        assert word in out


def test_a_made_workload_is_shown_exported_and_served(run, tiny_model, server, tmp_path):
    made, exported = tmp_path / "w.jsonl", tmp_path / "vllm.jsonl"
    flags = ["--num-requests", "5", "--max-prompt", "9", "--max-output", "6", "--request-rate", "50"]
    assert run("bench", "workload", "make", tiny_model, *flags, "--output", made)[0] == 0
    exit_code, out, _ = run("bench", "workload", "show", made)
    assert exit_code == 0
    assert "gaps, ms" in out and "█" in out
    assert run("bench", "workload", "export", made, "--format", "vllm", "--output", exported)[0] == 0
    assert len(exported.read_text().splitlines()) == 5
    exit_code, out, err = run("bench", "serve", "--base-url", server.url, "--dataset-path", made)
    assert (exit_code, err) == (0, "")
    assert "as the file says" in out
    exit_code, out, err = run("bench", "replay", tiny_model, "--base-url", server.url, "--trace", made)
    assert (exit_code, err) == (0, "")
    assert "1 times as fast" in out


def test_sweep_finds_the_rate_at_which_a_limit_breaks(run, tiny_model, tmp_path):
    """One request at a time takes 30 ms and more: a client that lets one out at once breaks near 30/s."""
    process = MockProcess(MockTiming(ttft_ms=30, gap_ms=1))
    output = tmp_path / "sweep.json"
    flags = ["--base-url", process.url, "--num-prompts", "12", "--max-concurrency", "1", "--first-rate", "8"]
    flags += ["--random-output-len", "1", "--random-input-len", "4", "--slo", "ttft_p90=150ms"]
    try:
        exit_code, out, err = run("bench", "sweep", tiny_model, *flags, "--output", output)
    finally:
        process.kill()
    assert (exit_code, err) == (0, "")
    found = json.loads(output.read_text())
    within = [point["rate"] for point in found["points"] if point["is_within"]]
    beyond = [point["rate"] for point in found["points"] if not point["is_within"]]
    assert found["max_rate"] == max(rate for rate in within if rate <= found["max_rate"])
    assert beyond and min(beyond) <= 256
    assert "29 bound them with 95 %" in out


def test_calibrate_finds_our_client_honest(run, tiny_model, tmp_path):
    output = tmp_path / "calibrate.json"
    flags = ["--only-ours", "--num-prompts", "10", "--output-len", "8", "--request-rate", "40"]
    exit_code, out, err = run("bench", "calibrate", tiny_model, *flags, "--output", output)
    assert err == ""
    (ours,) = json.loads(output.read_text())["clients"]
    assert [one["metric"] for one in ours["readings"]] == ["ttft_ms", "chunk_gap_ms", "tok_out_s"]
    assert exit_code == (0 if all(one["is_honest"] for one in ours["readings"]) else 1)
    for reading in ours["readings"]:  # a machine busy with other tests blurs times, but not this far
        assert 0.7 < reading["ratio"] < 1.4
    assert "octavo bench serve, ttft_ms" in out


def test_latency_shows_one_batch(run, tiny_model, tmp_path):
    output = tmp_path / "latency.json"
    flags = ["--input-len", "8", "--output-len", "4", "--batch-size", "3", "--num-iters", "2", *TINY]
    exit_code, out, err = run("bench", "latency", tiny_model, *flags, "--output", output)
    assert (exit_code, err) == (0, "")
    numbers = json.loads(output.read_text())
    assert {len(values) for values in numbers["values"].values()} == {6}
    assert "e2e_ms" in out


def test_compare_shows_ratios_and_fairness(run, tiny_model, tmp_path):
    output = tmp_path / "compare.json"
    flags = ["--target", "octavo", "--target", "again:octavo", "--target", "absent=http://127.0.0.1:9"]
    flags += ["--blocks", "2", "--num-requests", "2", "--prefill", "20", "--streams", "1"]
    flags += ["--num-decoded", "3", "--context", "8", *TINY, "--output", output]
    exit_code, out, err = run("bench", "compare", tiny_model, *flags)
    assert (exit_code, err) == (0, "")
    numbers = json.loads(output.read_text())
    assert len(numbers["blocks"]) == 2
    assert [one["failure"] is None for one in numbers["targets"]] == [True, True, False]
    for word in ("mixed, 2 at once, over again", "absent is out", "same output up to", "largest batch"):
        assert word in out
    exit_code, *_ = run("bench", "compare", tiny_model, *flags, "--resume")
    assert exit_code == 0
    assert json.loads(output.read_text())["blocks"] == numbers["blocks"]


def test_export_writes_a_folder_once(run, tiny_model, tmp_path):
    folder = tmp_path / "exported"
    assert run("bench", "export-weights", tiny_model, "--folder", folder)[0] == 0
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    exit_code, _, err = run("bench", "export-weights", tiny_model, "--folder", folder)
    assert exit_code == 2
    assert "something in it already" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serve", "--request-rate", "0"], "--request-rate"),
        (["serve", "--burstiness", "-1"], "--burstiness"),
        (["serve", "--goodput", "speed:9"], "--goodput speed:9"),
        (["serve", "--percentile-metrics", "tps"], "--percentile-metrics"),
        (["serve", "--metric-percentiles", "100"], "--metric-percentiles"),
        (["serve", "--num-prompts", "0"], "--num-prompts"),
        (["serve", "--base-url", "nowhere"], "no address of a server"),
        (["serve", "--dataset-path", "absent.jsonl"], "absent.jsonl"),
        (["serve", "--dataset-path", "x", "--random-input-len", "4"], "--random-input-len has no effect"),
        (["sweep", "--slo", "fast"], "--slo"),
        (["replay", "--trace", "absent.csv"], "absent.csv"),
        (["replay", "--trace", "x", "--speedup", "0"], "--speedup"),
        (["calibrate", "--jitter", "1"], "--jitter"),
        (["calibrate", "--output-len", "1"], "--output-len"),
        (["latency", "--batch-size", "0"], "--batch-size"),
        (["compare", "--target", "octavo"], "at least twice"),
        (["compare", "--target", "octavo", "--target", "nobody"], "there is no target 'nobody'"),
        (["compare", "--target", "a", "--target", "b", "--resume"], "--resume"),
        (["cpu", "--peers", "octavo"], "--peers"),
        (["workload", "show", "absent.jsonl"], "absent.jsonl"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(run, tiny_model, arguments, line):
    model = [] if arguments[0] == "workload" else [tiny_model]
    exit_code, out, err = (
        run("bench", arguments[0], *model, *arguments[1:]) if model else run("bench", *arguments)
    )
    assert (exit_code, out) == (1 if "no address" in line else 2, "")
    assert line in err
    assert err.count("\n") == 1


def test_a_server_that_is_not_there_is_told(run, tiny_model):
    exit_code, out, err = run("bench", "serve", tiny_model, "--base-url", "http://127.0.0.1:9")
    assert (exit_code, out) == (1, "")
    assert "127.0.0.1:9 cannot be reached" in err
