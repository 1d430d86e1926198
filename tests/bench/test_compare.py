"""Engines side by side: Octavo beside itself and beside one that fails, in blocks, kept and resumed."""

from __future__ import annotations

import json

import pytest

from octavo.bench.block_log import BlockLog
from octavo.bench.compare import run_compare
from octavo.bench.compare_spec import CompareSpec
from octavo.bench.cpu_spec import CpuSpec
from octavo.bench.targets.registry import make_target, parse_target
from octavo.bench.targets.settings import TargetSettings
from octavo.build import build_text
from octavo.errors import ConfigError

WORKS = CpuSpec(num_requests=3, prefill=40, streams=(1, 2), num_decoded=3, context=8)
NAMES = ["mixed, 3 at once", "prefill 40", "decode, 1 streams", "decode, 2 streams"]


def targets(tiny_config, *words: str):
    settings = TargetSettings.of(tiny_config)
    return [make_target(parse_target(word), settings) for word in words]


@pytest.fixture(scope="module")
def text(tiny_config):
    return build_text(tiny_config.model)


@pytest.fixture(autouse=True)
def calm(monkeypatch):
    """A noisy machine would repeat blocks, and these tests are not about it."""
    monkeypatch.setattr("octavo.bench.compare.has_drifted", lambda before, after: False)


async def test_every_block_has_every_work_of_every_target(tiny_config, text, tmp_path):
    log = BlockLog(tmp_path / "blocks.jsonl")
    log.begin({"what": 1}, resumes=False)
    told: list[str] = []
    run = await run_compare(
        targets(tiny_config, "octavo", "again:octavo"),
        CompareSpec(blocks=2, works=WORKS),
        text,
        log=log,
        on_done=told.append,
    )
    assert run.work_names == NAMES
    assert told == ["octavo", "again", "warm-up", "discarded block", "block 1", "block 2"]
    for block in run.blocks:
        assert set(block) == {"octavo", "again"}
        assert all(list(works) == NAMES and min(works.values()) > 0 for works in block.values())
    ours, theirs = run.pairs("octavo", "again", NAMES[0])
    assert len(ours) == len(theirs) == 2
    assert all(one.conformance is not None and one.conformance.agreement == 1 for one in run.contenders)
    assert json.loads(json.dumps(run.as_json()))["blocks"] == run.blocks
    assert log.read() == run.blocks


async def test_a_stopped_run_goes_on_with_its_blocks(tiny_config, text, tmp_path):
    log = BlockLog(tmp_path / "blocks.jsonl")
    log.begin({"what": 1}, resumes=False)
    kept = {"octavo": dict.fromkeys(NAMES, 7.0), "again": dict.fromkeys(NAMES, 5.0)}
    log.append(kept, {})
    with log.path.open("a") as file:
        file.write('{"values": {"octavo"')  # it was killed here
        file.write("\n")
    log.begin({"what": 1}, resumes=True)
    run = await run_compare(
        targets(tiny_config, "octavo", "again:octavo"), CompareSpec(blocks=2, works=WORKS), text, log=log
    )
    assert run.blocks[0] == kept and run.blocks[1] != kept
    with pytest.raises(ConfigError, match="another comparison"):
        log.begin({"what": 2}, resumes=True)


async def test_a_target_that_fails_is_out_and_the_rest_goes_on(tiny_config, text):
    run = await run_compare(
        targets(tiny_config, "octavo", "absent=http://127.0.0.1:9", "octavo-http"),
        CompareSpec(blocks=1, works=WORKS),
        text,
    )
    assert "cannot be reached" in (run.contenders[1].failure or "")
    assert list(run.blocks[0]) == ["octavo", "octavo-http"] or list(run.blocks[0]) == [
        "octavo-http",
        "octavo",
    ]
    assert run.contenders[2].conformance is not None and run.contenders[2].failure is None


async def test_the_first_target_must_be_there_and_names_differ(tiny_config, text):
    spec = CompareSpec(blocks=1, works=WORKS)
    with pytest.raises(ConfigError, match="first target"):
        await run_compare(targets(tiny_config, "absent=http://127.0.0.1:9", "octavo"), spec, text)
    with pytest.raises(ConfigError, match="same name"):
        await run_compare(targets(tiny_config, "octavo", "octavo"), spec, text)
