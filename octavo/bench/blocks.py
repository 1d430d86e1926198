"""A small workload whose blocks are looked at after every step: shared prompts, forks, hits, evictions.

Drives the engine itself and asks it for its block map. Draws nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from octavo.bench.block_history import BlockHistory
from octavo.bench.blocks_spec import BlocksSpec
from octavo.bench.prompts import ordinary_token_ids
from octavo.build import build_engine, build_text
from octavo.config import EngineConfig
from octavo.errors import RequestFailedError
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.control.engine import Engine

DEFAULT_KV_BYTES = 96 * 2**20
# Every fourth request is answered twice, so that there are forks to see.
_FORK_EVERY = 4


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, and the step before which it is submitted."""

    step: int
    prompt_token_ids: list[int]
    params: SamplingParams


def record_blocks(config: EngineConfig, spec: BlocksSpec) -> BlockHistory:
    """Load the model, run the workload, keep a snapshot after every `spec.every` steps.

    Raises:
        ModelLoadError, ConfigError: the engine cannot be built.
        RequestError: the workload does not fit the model's context or the KV pool.
        RequestFailedError: a request broke.
    """
    arrivals = make_arrivals(spec, ordinary_token_ids(build_text(config.model)))
    if config.cache.kv_cache_memory is None:
        # Small enough for the picture to show blocks being used again.
        config = replace(config, cache=replace(config.cache, kv_cache_memory=DEFAULT_KV_BYTES))
    parts = build_engine(config)
    try:
        return run_arrivals(parts.engine, arrivals, spec.every)
    finally:
        parts.engine.close()


def make_arrivals(spec: BlocksSpec, ordinary: list[int]) -> list[Arrival]:
    """Requests that begin with the same tokens, at exponential distances."""
    draw = random.Random(spec.seed)
    prefix = draw.choices(ordinary, k=spec.prefix)
    arrivals, step = [], 0.0
    for number in range(spec.num_requests):
        prompt = prefix + draw.choices(ordinary, k=1 + round(draw.expovariate(1 / spec.mean_prompt)))
        max_tokens = 1 + round(draw.expovariate(1 / spec.mean_output))
        n = 2 if number % _FORK_EVERY == _FORK_EVERY - 1 else 1
        params = SamplingParams(n=n, seed=number, max_tokens=max_tokens, ignore_eos=True)
        arrivals.append(Arrival(int(step), prompt, params))
        step += draw.expovariate(1 / spec.mean_gap)
    return arrivals


def run_arrivals(engine: Engine, arrivals: list[Arrival], every: int) -> BlockHistory:
    """Step to the end, submitting each request at its step; where nothing runs, the next comes at once."""
    coming = sorted(arrivals, key=lambda one: one.step)
    maps = [engine.cache.map()]
    num_submitted = step = 0
    while coming or engine.has_work:
        while coming and (coming[0].step <= step or not engine.has_work):
            arrival = coming.pop(0)
            engine.submit(f"r{num_submitted}", arrival.prompt_token_ids, arrival.params)
            num_submitted += 1
        for delta in engine.step():
            if delta.finish_reason is FinishReason.ERROR:
                raise RequestFailedError(f"request {delta.request_id} failed: {delta.error}")
        step += 1
        if step % every == 0 or not (coming or engine.has_work):
            maps.append(engine.cache.map())
    return BlockHistory(maps)
