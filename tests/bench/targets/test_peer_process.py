"""A peer in a process of its own: transformers, which the tests have, on a tiny model; and what breaks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from octavo.bench.targets.peer_process import PeerProcess, PeerProgram
from octavo.bench.targets.registry import make_target, parse_target
from octavo.bench.targets.settings import TargetSettings
from octavo.bench.targets.target import Ability, BenchRequest, TargetError

NUM_OUTPUT = (6, 3, 9)


def peer(module: str, tiny_config, **changes) -> PeerProcess:
    options = {
        "model": tiny_config.model.model,
        "dtype": "float32",
        "num_threads": 1,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "kv_bytes": 2**20,
        "prefix_caching": False,
    }
    program = PeerProgram(
        python=Path(sys.executable),
        module=module,
        options=options | changes,
        abilities=frozenset({Ability.STREAM, Ability.TOKEN_IDS, Ability.IGNORE_EOS}),
    )
    return PeerProcess("the peer", program)


def requests() -> list[BenchRequest]:
    return [
        BenchRequest(
            request_id=f"r{number}",
            prompt_token_ids=[5 + 11 * number + index for index in range(8 + 3 * number)],
            prompt_text="",
            num_output_tokens=num_output,
        )
        for number, num_output in enumerate(NUM_OUTPUT)
    ]


@pytest.mark.parametrize("module", ["hf_static_engine", "hf_continuous_engine"])
async def test_transformers_makes_octavos_tokens(tiny_config, module):
    settings = TargetSettings.of(tiny_config)
    octavo = make_target(parse_target("octavo=dtype=float32"), settings)
    target = peer(module, tiny_config)
    try:
        await octavo.start()
        expected = [
            [token_id for chunk in chunks for token_id in chunk.token_ids]
            for chunks in await octavo.generate_batch(requests())
        ]
        description = await target.start()
        assert "transformers" in description.engine and "num_threads=1" in description.flags
        batched = await target.generate_batch(requests())
        assert [[i for chunk in chunks for i in chunk.token_ids] for chunks in batched] == expected
        streamed = [
            [token_id async for chunk in target.generate(one) for token_id in chunk.token_ids]
            for one in requests()
        ]
        assert streamed == expected
        assert (await target.stats())["peak_rss_bytes"] > 2**20
    finally:
        await octavo.stop()
        await target.stop()
        await target.stop()


async def test_a_peer_that_cannot_load_says_why(tiny_config):
    target = peer("hf_static_engine", tiny_config, dtype="float33")
    with pytest.raises(TargetError, match=r"the peer: AttributeError.*float33"):
        await target.start()
    await target.stop()


async def test_a_peer_that_is_not_there_is_told(tiny_config):
    target = peer("no_such_engine", tiny_config)
    with pytest.raises(TargetError, match="No module named 'no_such_engine'"):
        await target.start()
    await target.stop()


async def test_a_peer_that_is_killed_fails_what_runs_and_what_comes(tiny_config):
    target = peer("hf_static_engine", tiny_config)
    try:
        await target.start()
        (long, *_) = requests()
        stream = target.generate(
            BenchRequest(
                request_id="long",
                prompt_token_ids=long.prompt_token_ids,
                prompt_text="",
                num_output_tokens=400,
            )
        )
        await anext(stream)
        assert target._process is not None
        target._process.kill()
        with pytest.raises(TargetError, match="the peer ended with exit code -9"):
            async for _ in stream:
                pass
        with pytest.raises(TargetError, match="exit code -9"):
            await asyncio.wait_for(target.generate_batch([long]), 10)
    finally:
        await target.stop()
