"""A text-generation-inference server as a target, by URL. It takes text and stops at EOS: both are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from octavo.bench.targets.gathering import gather_batch
from octavo.bench.targets.http_stream import Address, HttpClient, error_text
from octavo.bench.targets.prometheus import read_samples
from octavo.bench.targets.target import (
    Ability,
    BenchRequest,
    Chunk,
    TargetDescription,
    TargetError,
    TargetStep,
)


class TgiUrl:
    """One server, found at its URL; routes of TGI 3 (`/info`, `/generate_stream`)."""

    def __init__(self, name: str, url: str) -> None:
        self._name, self._url = name, url
        self._client = HttpClient(Address.of_url(url))

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.STREAM, Ability.CONTINUOUS})

    async def start(self) -> TargetDescription:
        status, body = await self._client.fetch("GET", "/info")
        try:
            info = msgspec.json.decode(body) if status == 200 else None
        except msgspec.DecodeError:
            info = None
        if not isinstance(info, dict) or "model_id" not in info:
            raise TargetError(f"{self._name}: {self._url} is no TGI server: GET /info answered {status}")
        return TargetDescription(
            name=self._name,
            engine="text-generation-inference",
            version=str(info.get("version", "unknown")),
            weights=str(info["model_id"]),
            compute_format=str(info.get("model_dtype") or "unknown"),
            kv_format="unknown",
            kv_bytes=None,
            num_threads=None,
            max_num_seqs=info.get("max_concurrent_requests"),
            max_num_batched_tokens=info.get("max_batch_prefill_tokens"),
            prefix_caching=None,
            flags=(self._url,),
            notes=("prompts go as text", "EOS ends outputs early"),
        )

    async def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        if request.num_samples > 1 or request.beam_width:
            raise TargetError(f"{self._name}: several outputs of a prompt cannot be asked for")
        body: dict[str, Any] = {
            "inputs": request.prompt_text,
            "parameters": {"max_new_tokens": request.num_output_tokens, "do_sample": False},
        }
        async for arrival_ns, data in self._client.stream("/generate_stream", body):
            try:
                event = msgspec.json.decode(data)
                if "error" in event:
                    raise TargetError(f"{self._name}: {error_text(data)}")
                token = event["token"]
                chunk = Chunk(
                    arrival_ns=arrival_ns, num_tokens=1, text=str(token["text"]), token_ids=(token["id"],)
                )
            except (msgspec.DecodeError, KeyError, TypeError):
                raise TargetError(f"{self._name}: an event cannot be read: {data[:80]!r}") from None
            yield chunk

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        return await gather_batch(self, requests)

    async def stats(self) -> Mapping[str, float]:
        status, body = await self._client.fetch("GET", "/metrics")
        return read_samples(body.decode(errors="replace")) if status == 200 else {}

    async def take_steps(self) -> Sequence[TargetStep]:
        return ()

    async def reset(self) -> None:
        """Nothing: there is no route for it."""

    async def stop(self) -> None:
        self._client.close()
