"""POST /v1/completions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.build import TextParts
from octavo.errors import RequestError
from octavo.messages import EngineReady
from octavo.server.bodies import read_body
from octavo.server.generation import ChoiceDelta, Generation
from octavo.server.openai.answer import answer
from octavo.server.openai.fields import refuse_unsupported
from octavo.server.openai.logprobs import LogprobFormat
from octavo.server.openai.reply import CollectedChoice
from octavo.server.openai.sampling import check_stream_options, completion_params
from octavo.server.openai.schema import MAX_PROMPTS, CompletionBody
from octavo.server.openai.service import service_params
from octavo.server.parts import ServerParts, encode_bad_words, encode_text

MAX_SEQUENCES = 1024


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: its tokens, and its text as `echo` repeats it."""

    token_ids: list[int]
    text: str


class CompletionFormat:
    """How completions write choices. Holds each choice's text offset, so: one per reply."""

    object_name = "text_completion"
    chunk_object_name = "text_completion"

    def __init__(self, body: CompletionBody, prompts: list[Prompt], logprobs: LogprobFormat) -> None:
        self._prompts = prompts
        self._logprobs = logprobs
        self._echo = bool(body.echo)
        self._has_logprobs = body.logprobs is not None
        self._has_prompt_logprobs = body.prompt_logprobs is not None
        self._has_token_ids = bool(body.return_token_ids)
        self._text_offsets: dict[int, int] = {}

    def opening_choice(self, choice_index: int) -> bytes | None:
        return None

    def full_fields(self, generation: Generation) -> dict[str, Any]:
        return {}

    def delta_choice(self, delta: ChoiceDelta, generation: Generation) -> bytes:
        if not (self._echo or self._has_logprobs or self._has_token_ids or delta.finish_reason):
            return (
                b'{"index":%d,"text":' % delta.choice_index
                + msgspec.json.encode(delta.text)
                + b',"logprobs":null,"finish_reason":null,"stop_reason":null}'
            )
        choice = CollectedChoice(
            delta.choice_index,
            delta.prompt_index,
            [delta.text],
            list(delta.token_ids),
            list(delta.logprobs),
            delta.finish_reason,
            delta.stop_reason,
        )
        return msgspec.json.encode(self._choice(choice, generation))

    def full_choice(self, choice: CollectedChoice, generation: Generation) -> dict[str, Any]:
        fields = self._choice(choice, generation)
        if self._has_prompt_logprobs:
            entries = generation.prompt_logprobs.get(choice.prompt_index, ())
            fields["prompt_logprobs"] = self._logprobs.prompt(entries)
        return fields

    def _choice(self, choice: CollectedChoice, generation: Generation) -> dict[str, Any]:
        """A choice or its next part; the prompt comes with the first part."""
        is_first = choice.choice_index not in self._text_offsets
        prompt = self._prompts[choice.prompt_index]
        text = prompt.text + choice.text if self._echo and is_first else choice.text
        fields: dict[str, Any] = {
            "index": choice.choice_index,
            "text": text,
            "logprobs": self._write_logprobs(choice, generation) if self._has_logprobs else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        self._text_offsets.setdefault(choice.choice_index, 0)
        if self._has_token_ids:
            fields["token_ids"] = choice.token_ids
            if is_first:
                fields["prompt_token_ids"] = prompt.token_ids
        return fields

    def _write_logprobs(self, choice: CollectedChoice, generation: Generation) -> dict[str, Any]:
        token_ids, entries = choice.token_ids, [*choice.logprobs]
        if self._echo and choice.choice_index not in self._text_offsets:
            token_ids = [*self._prompts[choice.prompt_index].token_ids, *token_ids]
            prompt_entries = generation.prompt_logprobs.get(choice.prompt_index, ())
            arrays, offset = self._logprobs.completion(
                token_ids, [None, *prompt_entries, *entries], text_offset=0
            )
        else:
            offset = self._text_offsets.get(choice.choice_index, 0)
            arrays, offset = self._logprobs.completion(token_ids, entries, text_offset=offset)
        self._text_offsets[choice.choice_index] = offset
        return arrays


async def create_completion(request: Request) -> Response:
    """One body in, one reply or stream out."""
    arrival_seconds = time.monotonic()
    parts: ServerParts = request.app.state.parts
    text_parts, facts = parts.admit()
    body = await read_body(request, CompletionBody, parts.config.server.max_body_bytes)
    parts.check_model(body.model)
    refuse_unsupported(body)
    check_stream_options(body)
    params = completion_params(body, text_parts.description.default_sampling)
    authorization = request.headers.get("authorization")
    service = service_params(body, authorization, parts.config.engine.scheduler)
    prompts = await _read_prompts(body, params.num_sequences, text_parts, facts)
    generation = Generation(
        parts.front,
        text_parts.tokenizer,
        [prompt.token_ids for prompt in prompts],
        params,
        bad_words_token_ids=await encode_bad_words(text_parts, params.bad_words),
        service=service,
        arrival_seconds=arrival_seconds,
    )
    logprobs = LogprobFormat(text_parts.tokenizer, as_token_ids=bool(body.return_tokens_as_token_ids))
    return await answer(
        request, body, generation, CompletionFormat(body, prompts, logprobs), id_prefix="cmpl"
    )


async def _read_prompts(
    body: CompletionBody, num_sequences: int, text_parts: TextParts, facts: EngineReady
) -> list[Prompt]:
    """The four shapes of `prompt` as a list of prompts."""
    if body.prompt is None:
        raise RequestError("prompt is missing", param="prompt")
    texts_or_ids = _split_prompts(body.prompt)
    if len(texts_or_ids) > MAX_PROMPTS or len(texts_or_ids) * num_sequences > MAX_SEQUENCES:
        raise RequestError(
            f"{len(texts_or_ids)} prompts with {num_sequences} sequences each (n or best_of) make more than "
            f"{MAX_SEQUENCES}",
            param="prompt",
        )
    add_special_tokens = body.add_special_tokens is not False
    tokenizer = text_parts.tokenizer
    prompts = []
    for prompt in texts_or_ids:
        await asyncio.sleep(0)  # there may be a thousand: everyone else has a turn between them
        if isinstance(prompt, str):
            token_ids = await encode_text(
                text_parts, facts, prompt, add_special_tokens=add_special_tokens, param="prompt"
            )
            prompts.append(Prompt(token_ids, prompt))
        else:
            _check_token_ids(prompt, facts)
            text = tokenizer.decode(prompt, skip_special_tokens=False) if body.echo else ""
            prompts.append(Prompt(prompt, text))
        if not prompts[-1].token_ids:
            raise RequestError("prompt is empty; it must have at least one token", param="prompt")
    return prompts


def _split_prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise RequestError("prompt is an empty list; it must have at least one entry", param="prompt")
    token_ids = [each for each in prompt if isinstance(each, int)]
    if len(token_ids) == len(prompt):
        return [token_ids]
    if token_ids or len({type(each) for each in prompt}) > 1:
        raise RequestError(
            "prompt must be a string, a list of strings, a list of token ids or a list of such lists, "
            "not a mixture",
            param="prompt",
        )
    return [each for each in prompt if not isinstance(each, int)]


def _check_token_ids(token_ids: list[int], facts: EngineReady) -> None:
    # The engine checks this too, but `echo` decodes here, before it is asked.
    worst = max(token_ids, default=0)
    if worst >= facts.vocab_size:
        raise RequestError(
            f"prompt has token id {worst}; the model's vocabulary ends at {facts.vocab_size - 1}",
            param="prompt",
        )
