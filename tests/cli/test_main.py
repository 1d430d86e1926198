"""The command line as a whole: wrong input is one line and exit code 2, help is quick."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import octavo

ROOT = Path(octavo.__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "COMMAND"),
        (["sreve"], "invalid choice: 'sreve'"),
        (["serve", "--prot", "1"], "unknown argument '--prot'; did you mean --port?"),
        (["serve", "--max-num-seq", "4"], "did you mean --max-num-seqs?"),
        (["serve", "a", "b"], "unknown argument 'b'"),
        (["serve", "--port", "many"], "--port: 'many' is not a whole number"),
        (["serve", "--port", "70000"], "--port must be from 0 to 65535"),
        (["serve", "--drain-timeout", "x"], "--drain-timeout: 'x' is not a number"),
        (["serve", "--kv-cache-memory", "much"], "--kv-cache-memory: 'much' is not a size"),
        (["serve", "--max-model-len", "-4"], "--max-model-len"),
        (["serve", "--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["serve", "--max-num-seqs", "600"], "must not exceed --max-num-batched-tokens"),
        (["serve", "--api-key", ""], "--api-key must not be empty"),
        (["generate", "x", "--temperature", "5"], "temperature must be from 0 to 2"),
        (["generate", "x", "--top-k", "some"], "--top-k: 'some' is not a whole number"),
        (["generate", "x", "--stop-token-ids", "1,b"], "is not a list of token ids"),
        (["generate", "x", "--logit-bias", "5"], "is not ID=BIAS"),
        (["generate", "x", "--file", "y"], "PROMPT or --file, not both"),
        (["generate", "--file", "no/such/file"], "no/such/file: cannot be read"),
        (["generate", "x", "--output", "y"], "only with --jsonl"),
        (["generate", "x", "--model", "no/such/model.gguf"], "no such file or folder"),
        (["generate", "x", "--logprobs", "1"], "unknown argument '--logprobs'"),
        (["chat", "--url", "127.0.0.1:8000"], "no address of a server"),
        (["chat", "--url", "http://127.0.0.1:8000", "--num-threads", "1"], "--num-threads has no effect"),
        (["chat", "some-model", "--url", "http://127.0.0.1:8000"], "MODEL has no effect with --url"),
        (["bench"], "BENCHMARK"),
        (["bench", "throughput", "--mean-prompt", "0"], "--mean-prompt must be at least 1"),
        (["bench", "throughput", "--output", "no/such/folder/x"], "no file can be written there"),
        (["bench", "startup", "--num-runs", "0"], "--num-runs must be at least 1"),
        (["doctor", "no/such/model.gguf"], "no such file or folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(run, arguments, line):
    exit_code, out, err = run(*arguments)
    assert exit_code == 2
    assert out == ""
    assert err.startswith("octavo: error: ")
    assert err.count("\n") == 1
    assert line in err


def test_nobody_listening_is_a_failure_and_not_wrong_input(run):
    exit_code, _, err = run("chat", "--url", "http://127.0.0.1:9")
    assert exit_code == 1
    assert err == (
        "octavo: error: http://127.0.0.1:9: no server answers there (Connection refused); "
        "start one with `octavo serve`\n"
    )


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["generate"], ["chat"], ["doctor"], ["bench"], ["bench", "throughput"]]
)
def test_every_command_has_help(run, command):
    exit_code, out, err = run(*command, "--help")
    assert (exit_code, err) == (0, "")
    assert out.startswith("usage: octavo")


def test_help_is_quick():
    def measure() -> float:
        started_seconds = time.perf_counter()
        subprocess.run([sys.executable, "-m", "octavo.cli.main", "--help"], check=True, stdout=-1, cwd=ROOT)
        return time.perf_counter() - started_seconds

    # The best of a few, because other processes may be busy; loading torch would take seconds.
    assert min(measure() for _ in range(5)) < 0.3


def test_one_version_everywhere(run):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version") == (0, f"octavo {octavo.__version__}\n", "")
    assert project.get("version", octavo.__version__) == octavo.__version__


def test_public_names_are_found_lazily():
    code = (
        "import sys, octavo; assert not {'torch', 'octavo.llm'} & set(sys.modules)\n"
        "from octavo import *; assert LLM.__module__ == 'octavo.llm'\n"
        "assert {RequestOutput, CompletionOutput, Logprob, SamplingParams} and dir(octavo)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="AsyncLLM"):
        octavo.AsyncLLM  # noqa: B018


def test_a_reader_that_leaves_is_no_error(tiny_model):
    """`octavo ... | head -c 0`"""
    command = [sys.executable, "-m", "octavo.cli.main", "doctor", str(tiny_model), "--json"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, cwd=ROOT) as process:
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
