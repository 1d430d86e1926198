"""All requests of a batch at once, for targets that have no other way than one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from octavo.bench.targets.target import BenchRequest, Chunk, Target


async def gather_batch(target: Target, requests: Sequence[BenchRequest]) -> list[list[Chunk]]:
    """The first failure ends all of them and is raised."""

    async def collect(request: BenchRequest) -> list[Chunk]:
        return [chunk async for chunk in target.generate(request)]

    tasks = [asyncio.ensure_future(collect(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
