"""`octavo generate` on a tiny model: one prompt, and batches of JSON lines with bad lines among them."""

from __future__ import annotations

import io
import json

import pytest

from octavo import LLM, SamplingParams
from octavo.cli import batch
from octavo.cli.terminal import write_text

FLAGS = ["--kv-cache-memory", "1MB", "--num-threads", "1", "--temperature", "0"]


@pytest.fixture(scope="module")
def expected(tiny_model) -> str:
    """What the tiny model makes of "abc"."""
    with LLM(str(tiny_model), kv_cache_memory="1MB", num_threads=1) as llm:
        (output,) = llm.generate("abc", SamplingParams(temperature=0.0, max_tokens=6))
        return output.outputs[0].text


def test_a_prompt_from_argument_file_or_stdin(run, tiny_model, tmp_path, monkeypatch, expected):
    flags = ["--model", tiny_model, "--max-tokens", "6", *FLAGS]
    file = tmp_path / "prompt.txt"
    file.write_text("abc")
    assert run("generate", "abc", *flags) == (0, expected + "\n", "")
    assert run("generate", "--file", file, *flags) == (0, expected + "\n", "")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    assert run("generate", *flags) == (0, expected + "\n", "")


def test_several_continuations_come_one_after_another(run, tiny_model, expected):
    exit_code, out, _ = run("generate", "abc", "--n", "2", "--model", tiny_model, "--max-tokens", "6", *FLAGS)
    assert exit_code == 0
    assert out == f"--- 1 of 2 ---\n{expected}\n--- 2 of 2 ---\n{expected}\n"


def test_what_is_chosen_at_the_end_is_printed_whole(run, tiny_model, expected):
    flags = ["--model", tiny_model, "--max-tokens", "6", *FLAGS]
    assert run("generate", "abc", "--best-of", "3", *flags) == (0, expected + "\n", "")
    exit_code, out, err = run("generate", "abc", "--use-beam-search", "--best-of", "2", *flags)
    assert (exit_code, err) == (0, "")
    assert len(out) > 1


def test_what_is_no_text_is_refused(run, tiny_model, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"ab\xff")
    exit_code, _, err = run("generate", "--file", file, "--model", tiny_model)
    assert exit_code == 2
    assert err == f"octavo: error: {file}: byte 2 is no UTF-8 text\n"


def test_a_terminal_gets_no_control_characters():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        write_text("a\x1b[2J\x9b\x07\tb\r\n", stream)
    assert terminal.getvalue() == "a[2J\tb\n"
    assert file.getvalue() == "a\x1b[2J\x9b\x07\tb\r\n"


def run_batch(run, tiny_model, tmp_path, lines: list[object], *flags: str):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with source.open("wb") as file:
        for line in lines:
            file.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    exit_code, out, err = run(
        "generate", "--jsonl", source, "--output", target, "--model", tiny_model, *FLAGS, *flags
    )
    assert out == ""
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    return exit_code, {answer["line"]: answer for answer in answers}, err


def test_a_batch_answers_each_line(run, tiny_model, tmp_path, expected):
    lines = [
        {"prompt": "abc", "max_tokens": 6, "id": 17},
        {"prompt_token_ids": [5, 6, 7], "max_tokens": 2, "custom_id": "x", "logprobs": 1},
        {"prompt": "abc", "n": 2, "max_tokens": None, "prompt_logprobs": 0},
    ]
    exit_code, answers, err = run_batch(run, tiny_model, tmp_path, lines, "--max-tokens", "3")
    assert (exit_code, err) == (0, "")
    assert answers[1]["id"] == 17
    assert answers[1]["outputs"][0]["text"] == expected
    assert answers[1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 6}
    assert answers[2]["custom_id"] == "x"
    assert len(answers[2]["outputs"][0]["logprobs"]) == 2
    assert [len(output["token_ids"]) for output in answers[3]["outputs"]] == [3, 3]
    assert answers[3]["prompt_logprobs"][0] is None
    assert len(answers[3]["prompt_logprobs"]) == 3


def test_lines_may_say_how_they_are_served(run, tiny_model, tmp_path):
    lines = [
        {"prompt": "abc", "max_tokens": 3, "priority": -1, "cache_salt": "s", "deadline_seconds": 60},
        {"prompt": "abc", "max_tokens": 3, "fairness_key": "alice"},
        {"prompt": "abc", "max_tokens": 3, "priority": "high"},
        {"prompt": "abc", "max_tokens": 100, "ignore_eos": True, "deadline_seconds": 1e-6},
        {"prompt": "abc", "max_tokens": 3, "best_of": 3},
        {"prompt": "abc", "max_tokens": 3, "use_beam_search": True, "n": 2, "early_stopping": "never"},
    ]
    exit_code, answers, _ = run_batch(run, tiny_model, tmp_path, lines, "--policy", "priority")
    assert exit_code == 1
    assert answers[1]["outputs"][0]["finish_reason"] == "length"
    assert answers[2]["error"]["param"] == "fairness_key"
    assert answers[3]["error"]["param"] == "priority"
    assert answers[4]["error"]["message"]
    assert answers[4]["error"]["param"] is None
    assert len(answers[5]["outputs"]) == 1
    assert answers[5]["usage"]["completion_tokens"] == 9
    assert len(answers[6]["outputs"]) == 2


def test_bad_lines_are_reported_by_number_and_the_rest_go_on(run, tiny_model, tmp_path, expected):
    lines = [
        {"prompt": "abc", "max_tokens": 6},
        b"{not json",
        b"",
        [1],
        {"prompt": "abc", "topk": 1},
        {"prompt": "abc", "temperature": "hot"},
        {"prompt": "abc", "prompt_token_ids": [1]},
        {"max_tokens": 6},
        {"prompt_token_ids": [10**6]},
        {"prompt": "abc", "max_tokens": 10**6, "id": "too long"},
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        {"prompt": "abc", "ignore_eos": "false"},
        {"prompt": "abc", "stop_token_ids": 3},
        {"prompt": "abc", "logit_bias": [1]},
        b'{"prompt": "abc", "temperature": NaN}',
        {"messages": [{"role": "user", "content": "no template here"}]},
        {"prompt": "abc", "max_tokens": 6},
    ]
    exit_code, answers, err = run_batch(run, tiny_model, tmp_path, lines)
    assert exit_code == 1
    assert answers[1]["outputs"][0]["text"] == answers[18]["outputs"][0]["text"] == expected
    bad = [2, *range(4, 18)]
    assert sorted(answers) == [1, *bad, 18]
    assert all(answers[number]["error"]["message"] for number in bad)
    assert answers[5]["error"] == {"message": "unknown field 'topk'", "param": "topk"}
    assert answers[6]["error"]["param"] == "temperature"
    assert answers[10]["id"] == "too long"
    assert err.startswith("octavo: 15 lines failed (the output says why): 2, 4, 5")


def test_a_line_without_end_is_not_taken_into_memory(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MAX_LINE_BYTES", 100)
    lines = [b'{"prompt": "' + b"x" * 1000 + b'"}', {"prompt": "abc", "max_tokens": 1}]
    exit_code, answers, _ = run_batch(run, tiny_model, tmp_path, lines)
    assert exit_code == 1
    assert "longer than 100 bytes" in answers[1]["error"]["message"]
    assert answers[2]["outputs"]


def test_lines_are_read_as_there_is_room_and_written_as_they_finish(run, tiny_model, tmp_path):
    lines = [{"prompt": "a" * (1 + index % 7), "max_tokens": 1 + index % 5} for index in range(60)]
    flags = ("--max-num-seqs", "4", "--max-num-batched-tokens", "16")
    exit_code, answers, _ = run_batch(run, tiny_model, tmp_path, lines, *flags)
    assert exit_code == 0
    lengths = [answers[number]["usage"]["completion_tokens"] for number in range(1, 61)]
    assert lengths == [line["max_tokens"] for line in lines]


@pytest.mark.parametrize("output", ["in.jsonl", "no/such/folder/out.jsonl", "."])
def test_an_output_that_cannot_be_is_told_before_a_model_is_loaded(run, tmp_path, output):
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    target = tmp_path / output
    exit_code, _, err = run("generate", "--jsonl", source, "--output", target, "--model", "no/such.gguf")
    assert exit_code == 2
    assert "--output" in err
    assert source.read_text() == "{}\n"
