"""`octavo doctor` and `octavo bench`: the numbers they show are right and fit together."""

from __future__ import annotations

import json

import pytest

from octavo.bench.startup import measure_startup
from octavo.checkpoint import starter
from octavo.errors import EngineUnavailableError


def test_doctor_shows_tables(run, tiny_model):
    exit_code, out, err = run("doctor", tiny_model)
    assert (exit_code, err) == (0, "")
    for word in ("Machine", "Model", "What would fit", "Kernels", "paged_attention", "sequences at the same"):
        assert word in out


def test_doctors_arithmetic(run, tiny_model):
    exit_code, out, _ = run(
        *("doctor", tiny_model, "--json", "--kv-cache-memory", "1MB", "--block-size", "8"),
        *("--kv-cache-dtype", "float32"),
    )
    assert exit_code == 0
    findings = json.loads(out)
    # 3 layers, 2 KV heads of 8 numbers, keys and values, 4 bytes each.
    assert findings["fit"]["bytes_per_token"] == 3 * 2 * 8 * 2 * 4
    assert findings["fit"]["num_blocks"] == 2**20 // (8 * 384)
    assert findings["fit"]["num_sequences_by_tokens"] == {"256": 341 // 32, "512": 341 // 64}
    assert findings["model"]["weight_bytes"] == 4 * findings["model"]["num_parameters"]
    assert findings["device"]["dtype"] == "float32"
    assert {"operation", "implementation", "reason"} == findings["device"]["kernels"][0].keys()


def test_doctor_says_what_does_not_fit(run, tiny_model):
    exit_code, out, _ = run("doctor", tiny_model, "--kv-cache-memory", "900TB")
    assert exit_code == 0
    assert "does not fit" in out


def test_doctor_without_any_model_says_how_to_get_one(run, monkeypatch):
    monkeypatch.setattr(starter, "DISTRIBUTION", "no-such-distribution")
    exit_code, out, _ = run("doctor")
    assert exit_code == 0
    assert "not installed" in out
    assert "pip install" in out


def test_throughput_shows_and_keeps_its_numbers(run, tiny_model, tmp_path):
    output = tmp_path / "numbers.json"
    flags = ["--num-requests", "3", "--max-prompt", "20", "--max-output", "6", "--kv-cache-memory", "1MB"]
    exit_code, out, err = run("bench", "throughput", tiny_model, *flags, "--output", output)
    assert (exit_code, err) == (0, "")
    numbers = json.loads(output.read_text())
    assert f"{numbers['num_output_tokens']} tokens" in out
    assert f"{len(numbers['steps']['step_id'])} steps" in out


def test_startup_starts_a_real_server(run, tmp_path):
    output = tmp_path / "numbers.json"
    flags = ["--num-runs", "1", "--kv-cache-memory", "16MB", "--num-threads", "1"]
    exit_code, out, _ = run("bench", "startup", *flags, "--output", output)
    assert exit_code == 0
    (measured,) = json.loads(output.read_text())["runs"]
    assert 0.5 < measured["ready_seconds"] < 60
    assert measured["peak_rss_bytes"] > 100 * 2**20  # the starter's weights and torch
    assert 0 < measured["pack_seconds"] < measured["load_seconds"] < measured["ready_seconds"]
    assert 85 <= measured["packed_mib"] <= 110  # Q4_1 and Q8_0 as panels
    assert "ready" in out


def test_a_server_that_does_not_start_is_told(capfd):
    with pytest.raises(EngineUnavailableError, match="exit code 2"):
        measure_startup(["no/such/model.gguf"])
    assert "no such file or folder" in capfd.readouterr().err
