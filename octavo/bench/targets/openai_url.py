"""Any server that speaks OpenAI's completions, as a target: Octavo, vLLM, llama-server and others.

Prompts go as token ids, greedy, EOS ignored; tokens are counted by event and set right by `usage`.
"""

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
from octavo.config import environment_defaults

_ABILITIES = frozenset({Ability.STREAM, Ability.IGNORE_EOS, Ability.CONTINUOUS, Ability.SAMPLES})


class _Choice(msgspec.Struct):
    text: str = ""
    token_ids: list[int] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    """What of an event is of interest; everything else is skipped, which costs least."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class OpenAiUrl:
    """One server, found at its URL.

    Args:
        model: as the server calls it; None asks the server.
        sends_token_ids: prompts as ids; else as text.
        tells_token_ids: ask for the ids of the output (Octavo and vLLM know `return_token_ids`), which
            makes counts exact and costs the server some time.
        extra: further fields of each request's body.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        model: str | None = None,
        sends_token_ids: bool = True,
        tells_token_ids: bool = False,
        extra: Mapping[str, Any] | None = None,
        engine: str = "unknown",
    ) -> None:
        self._name, self._url, self._model = name, url, model
        self._sends_token_ids, self._tells_token_ids = sends_token_ids, tells_token_ids
        self._extra, self._engine = dict(extra or {}), engine
        api_key = environment_defaults().get("api_key")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = HttpClient(Address.of_url(url), headers=headers)
        self._decoder = msgspec.json.Decoder(_Event)

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        return _ABILITIES | {Ability.TOKEN_IDS} if self._tells_token_ids else _ABILITIES

    async def start(self) -> TargetDescription:
        status, body = await self._client.fetch("GET", "/v1/models")
        if status != 200:
            raise TargetError(f"{self._name}: GET /v1/models answered {status}: {error_text(body)}")
        try:
            models = [str(model["id"]) for model in msgspec.json.decode(body)["data"]]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise TargetError(f"{self._name}: {self._url} does not speak OpenAI's protocol") from None
        if self._model is None:
            if not models:
                raise TargetError(f"{self._name}: {self._url} serves no model")
            self._model = models[0]
        return TargetDescription(
            name=self._name,
            engine=self._engine,
            version=await self._version(),
            weights=self._model,
            compute_format="unknown",
            kv_format="unknown",
            kv_bytes=None,
            num_threads=None,
            max_num_seqs=None,
            max_num_batched_tokens=None,
            prefix_caching=None,
            flags=(self._url,),
        )

    async def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        num_wanted = request.num_output_tokens * (request.beam_width or request.num_samples)
        num_told, num_used, held = 0, None, None
        async for arrival_ns, data in self._client.stream("/v1/completions", self._body(request)):
            event = self._read(data)
            if event.usage is not None:
                num_used = event.usage.completion_tokens
            if not event.choices:
                continue
            chunk = self._chunk(event, arrival_ns)
            # The last chunk waits for the usage that follows it, which may raise its count.
            if held is not None and held.num_tokens:
                num_told += held.num_tokens
                yield held
            held = chunk if held is None or chunk.num_tokens or held.num_tokens else held
        if held is None:
            raise TargetError(f"{self._name}: request {request.request_id} ended without any output")
        num_last = max((num_used or num_told + held.num_tokens) - num_told, 0)
        if num_last:
            yield Chunk(
                arrival_ns=held.arrival_ns,
                num_tokens=num_last,
                text=held.text,
                token_ids=held.token_ids if len(held.token_ids) == num_last else (),
            )
        if num_used is not None and num_used > num_wanted:
            raise TargetError(f"{self._name}: {num_used} tokens came where {num_wanted} were asked for")

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        return await gather_batch(self, requests)

    async def stats(self) -> Mapping[str, float]:
        """What /metrics tells, where there is such a page."""
        status, body = await self._client.fetch("GET", "/metrics")
        return read_samples(body.decode(errors="replace")) if status == 200 else {}

    async def take_steps(self) -> Sequence[TargetStep]:
        return ()

    async def reset(self) -> None:
        """Nothing: no route for it is common to these servers."""

    async def stop(self) -> None:
        self._client.close()

    def _body(self, request: BenchRequest) -> dict[str, Any]:
        num_samples = request.beam_width or request.num_samples
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(request.prompt_token_ids) if self._sends_token_ids else request.prompt_text,
            "max_tokens": request.num_output_tokens,
            "temperature": 0.0 if request.num_samples == 1 else 1.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if num_samples > 1:
            body["n"] = num_samples
        if request.beam_width:
            body["use_beam_search"] = True
        if self._tells_token_ids:
            body["return_token_ids"] = True
        return body | self._extra

    def _read(self, data: bytes) -> _Event:
        try:
            event = self._decoder.decode(data)
        except msgspec.DecodeError as error:
            raise TargetError(f"{self._name}: an event cannot be read: {error}") from None
        if event.error is not None:
            raise TargetError(f"{self._name}: {error_text(data)}")
        return event

    def _chunk(self, event: _Event, arrival_ns: int) -> Chunk:
        token_ids: list[int] = []
        num_texts = 0
        for choice in event.choices:
            token_ids += choice.token_ids or ()
            num_texts += bool(choice.text)
        return Chunk(
            arrival_ns=arrival_ns,
            num_tokens=len(token_ids) if self._tells_token_ids else num_texts,
            text="".join(choice.text for choice in event.choices),
            token_ids=tuple(token_ids),
        )

    async def _version(self) -> str:
        """Octavo and vLLM have /version, llama-server tells its build in /props."""
        for route, key in (("/version", "version"), ("/props", "build_info")):
            status, body = await self._client.fetch("GET", route)
            if status == 200:
                try:
                    return str(msgspec.json.decode(body)[key])
                except (msgspec.DecodeError, KeyError, TypeError):
                    continue
        return "unknown"
