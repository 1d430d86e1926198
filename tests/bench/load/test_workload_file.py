"""Workloads as files, and traces: what is written is read again, and what is wrong is told with its line."""

from __future__ import annotations

import json

import pytest

from octavo.bench.load.trace_file import read_trace
from octavo.bench.load.workload_file import (
    TimedRequest,
    draw_requests,
    due_of,
    read_requests,
    write_requests,
)
from octavo.bench.workload import WorkloadSpec
from octavo.build import build_text
from octavo.errors import ConfigError


@pytest.fixture(scope="module")
def text(tiny_config):
    return build_text(tiny_config.model)


def test_a_file_comes_back_as_it_was(text, tmp_path):
    timed = [
        TimedRequest(one, 0.25 * number)
        for number, one in enumerate(draw_requests(WorkloadSpec(num_requests=4), text))
    ]
    path = tmp_path / "w.jsonl"
    path.write_text(write_requests(timed, "octavo"))
    assert read_requests(path) == timed
    assert due_of(timed) == [0.0, 0.25, 0.5, 0.75]


def test_other_tools_get_their_own_fields(text):
    timed = [TimedRequest(one) for one in draw_requests(WorkloadSpec(num_requests=2), text)]
    first = json.loads(write_requests(timed, "vllm").splitlines()[0])
    assert first == {
        "prompt": timed[0].request.prompt_text,
        "output_tokens": timed[0].request.num_output_tokens,
    }
    first = json.loads(write_requests(timed, "guidellm").splitlines()[0])
    assert first["prompt_tokens_count"] == len(timed[0].request.prompt_token_ids)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"prompt_token_ids": [], "output_tokens": 3}', '{"prompt": "x"}']
)
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "w.jsonl"
    path.write_text(f'{{"prompt_token_ids": [4], "output_tokens": 2}}\n{line}\n')
    with pytest.raises(ConfigError, match=r"w\.jsonl:2: not a request"):
        read_requests(path)


def trace(path, text, **changes):
    given = {"num_requests": None, "speedup": 2.0, "longest": 100, "seed": 0} | changes
    return read_trace(path, text, **given)


def test_mooncake_shares_beginnings(text, tmp_path):
    lines = [
        {"timestamp": 1000, "input_length": 700, "output_length": 5, "hash_ids": [7, 8]},
        {"timestamp": 3000, "input_length": 600, "output_length": 90, "hash_ids": [7, 9]},
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = trace(path, text, longest=2000)
    assert (first.due_seconds, second.due_seconds) == (0.0, 1.0)
    a, b = first.request.prompt_token_ids, second.request.prompt_token_ids
    assert (len(a), len(b)) == (700, 600)
    assert a[:512] == b[:512] and a[512:600] != b[512:600]
    clipped = trace(path, text)[1].request
    assert (len(clipped.prompt_token_ids), clipped.num_output_tokens) == (50, 50)


def test_azure_and_burstgpt(text, tmp_path):
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,40,7\n2023-11-16 18:15:50.9951690,3,2\n"
    )
    found = trace(azure, text, speedup=1.0)
    assert [len(one.request.prompt_token_ids) for one in found] == [40, 3]
    assert found[1].due_seconds == pytest.approx(4.314579)
    burst = tmp_path / "burst.csv"
    burst.write_text("Timestamp,Model,Request tokens,Response tokens\n5,m,12,3\n6,m,1,1\n")
    assert [one.due_seconds for one in trace(burst, text)] == [0.0, 0.5]


def test_an_unknown_trace_is_refused(text, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no known trace"):
        trace(path, text)
    with pytest.raises(ConfigError, match="No such file"):
        trace(tmp_path / "absent.csv", text)
