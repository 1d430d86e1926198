"""Octavo in process and over HTTP as targets: the same tokens, exact lengths, failures in one line."""

from __future__ import annotations

import asyncio

import pytest

from octavo.bench.targets.registry import make_target, parse_target
from octavo.bench.targets.settings import TargetSettings, serve_flags
from octavo.bench.targets.target import Ability, BenchRequest, Target, TargetError
from octavo.cli.config_flags import read_engine_config
from octavo.cli.main import make_parser


def request(number: int, *, num_prompt: int = 12, num_output: int = 5, **more: int) -> BenchRequest:
    prompt = [3 + (7 * number + index) % 250 for index in range(num_prompt)]
    return BenchRequest(
        request_id=f"r{number}",
        prompt_token_ids=prompt,
        prompt_text="x" * num_prompt,
        num_output_tokens=num_output,
        **more,
    )


@pytest.fixture
def settings(tiny_config) -> TargetSettings:
    return TargetSettings.of(tiny_config)


async def run(target: Target, requests: list[BenchRequest]) -> list[list[int]]:
    """Each request streamed, all at once: the tokens of each."""

    async def one(wanted: BenchRequest) -> list[int]:
        return [token_id async for chunk in target.generate(wanted) for token_id in chunk.token_ids]

    return list(await asyncio.gather(*(one(wanted) for wanted in requests)))


async def test_streamed_and_batched_outputs_are_the_same(settings):
    target = make_target(parse_target("octavo"), settings)
    requests = [request(number, num_output=3 + number) for number in range(6)]
    try:
        description = await target.start()
        assert description.kv_bytes is not None and description.kv_bytes <= settings.kv_bytes
        streamed = await run(target, requests)
        batched = await target.generate_batch(requests)
    finally:
        await target.stop()
    assert [len(tokens) for tokens in streamed] == [3, 4, 5, 6, 7, 8]
    assert [[i for chunk in chunks for i in chunk.token_ids] for chunks in batched] == streamed
    for chunks in batched:
        stamps = [chunk.arrival_ns for chunk in chunks]
        assert stamps == sorted(stamps) and len(set(stamps)) == len(stamps)


async def test_steps_add_up_to_the_work(settings):
    target = make_target(parse_target("octavo"), settings)
    requests = [request(number) for number in range(4)]
    try:
        await target.start()
        await target.generate_batch(requests)
        steps = await target.take_steps()
        assert await target.take_steps() == []
    finally:
        await target.stop()
    assert sum(step.num_prefill_tokens for step in steps) == 4 * 12
    assert sum(step.num_decode_tokens for step in steps) == 4 * (5 - 1)
    assert all(step.start_ns < step.end_ns for step in steps)
    assert max(step.num_running for step in steps) == 4


async def test_samples_and_beams_bring_all_their_tokens(settings):
    target = make_target(parse_target("octavo"), settings)
    try:
        await target.start()
        (samples,) = await target.generate_batch([request(0, num_samples=3)])
        (beams,) = await target.generate_batch([request(1, beam_width=2)])
    finally:
        await target.stop()
    assert sum(chunk.num_tokens for chunk in samples) == 15
    assert sum(chunk.num_tokens for chunk in beams) == 10


async def test_a_refused_request_fails_alone(settings):
    target = make_target(parse_target("octavo"), settings)
    try:
        await target.start()
        too_long = request(0, num_prompt=600)
        results = await asyncio.gather(
            run(target, [too_long]), run(target, [request(1)]), return_exceptions=True
        )
        assert isinstance(results[0], TargetError) and "512" in str(results[0])
        assert [len(tokens) for tokens in results[1]] == [5]
    finally:
        await target.stop()


async def test_an_abandoned_stream_ends_its_request(settings):
    target = make_target(parse_target("octavo"), settings)
    try:
        await target.start()
        stream = target.generate(request(0, num_output=400))
        await anext(stream)
        await stream.aclose()
        assert [len(tokens) for tokens in await run(target, [request(1)])] == [5]
        assert (await target.take_steps())[-1].num_running <= 1
    finally:
        await target.stop()


async def test_over_http_comes_what_comes_in_process(settings):
    requests = [request(number, num_output=4 + number) for number in range(3)]
    here = make_target(parse_target("octavo"), settings)
    server = make_target(parse_target("octavo-http"), settings)
    try:
        await here.start()
        expected = await run(here, requests)
        description = await server.start()
        assert "--kv-cache-memory" in description.flags
        batched = await server.generate_batch(requests)
        assert [sum(chunk.num_tokens for chunk in chunks) for chunks in batched] == [4, 5, 6]
        url = f"octavo=http://127.0.0.1:{description.flags[description.flags.index('--port') + 1]}"
        by_url = make_target(parse_target(url), settings)
        await by_url.start()
        assert Ability.TOKEN_IDS in by_url.abilities
        assert await run(by_url, requests) == expected
        await by_url.stop()
        assert (await server.stats())["peak_rss_bytes"] > 2**20
        await server.reset()
    finally:
        await here.stop()
        await server.stop()
        await server.stop()  # twice does no harm


async def test_a_server_that_does_not_start_says_why(settings):
    target = make_target(parse_target("octavo-http=max_model_len=100000"), settings)
    with pytest.raises(TargetError, match=r"octavo-http ended with exit code 2: .*max-model-len"):
        await target.start()
    await target.stop()


async def test_an_absent_server_is_told(settings):
    target = make_target(parse_target("somewhere=http://127.0.0.1:9"), settings)
    with pytest.raises(TargetError, match=r"127\.0\.0\.1:9 cannot be reached"):
        await target.start()


def test_flags_of_a_config_make_the_same_config(settings):
    words = ["serve", str(settings.config.model.model), *serve_flags(settings.config)]
    assert read_engine_config(vars(make_parser().parse_args(words))) == settings.config
