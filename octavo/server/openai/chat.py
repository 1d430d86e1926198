"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.build import TextParts
from octavo.errors import RequestError
from octavo.server.bodies import read_body
from octavo.server.generation import ChoiceDelta, Generation
from octavo.server.openai.answer import answer
from octavo.server.openai.fields import refuse_unsupported
from octavo.server.openai.logprobs import LogprobFormat
from octavo.server.openai.reply import CollectedChoice
from octavo.server.openai.sampling import chat_params, check_stream_options
from octavo.server.openai.schema import MAX_MESSAGES, ChatBody, ContentPart, Message
from octavo.server.openai.service import service_params
from octavo.server.parts import ServerParts, encode_bad_words, encode_text

# Names that a template gets from the server; a client may not put its own in their place.
_RESERVED_TEMPLATE_NAMES = frozenset(
    {
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("chat_template", "tokenize", "bos_token", "eos_token", "raise_exception", "strftime_now"),
    }
)


class ChatFormat:
    """How chat completions write choices."""

    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"

    def __init__(self, body: ChatBody, logprobs: LogprobFormat) -> None:
        self._logprobs = logprobs
        self._has_logprobs = bool(body.logprobs)
        self._has_prompt_logprobs = body.prompt_logprobs is not None
        self._has_token_ids = bool(body.return_token_ids)

    def opening_choice(self, choice_index: int) -> bytes | None:
        return (
            b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}' % choice_index
        )

    def full_fields(self, generation: Generation) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self._has_prompt_logprobs:
            fields["prompt_logprobs"] = self._logprobs.prompt(generation.prompt_logprobs.get(0, ()))
        if self._has_token_ids:
            fields["prompt_token_ids"] = generation.prompts[0]
        return fields

    def delta_choice(self, delta: ChoiceDelta, generation: Generation) -> bytes:
        if not (self._has_logprobs or self._has_token_ids or delta.finish_reason):
            return (
                b'{"index":%d,"delta":{"content":' % delta.choice_index
                + msgspec.json.encode(delta.text)
                + b'},"logprobs":null,"finish_reason":null}'
            )
        fields: dict[str, Any] = {
            "index": delta.choice_index,
            "delta": {"content": delta.text} if delta.text else {},
            "logprobs": self._logprobs.chat(delta.logprobs) if self._has_logprobs else None,
            "finish_reason": delta.finish_reason,
        }
        if delta.finish_reason is not None:
            fields["stop_reason"] = delta.stop_reason
        if self._has_token_ids:
            fields["token_ids"] = delta.token_ids
        return msgspec.json.encode(fields)

    def full_choice(self, choice: CollectedChoice, generation: Generation) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "index": choice.choice_index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs.chat(choice.logprobs) if self._has_logprobs else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._has_token_ids:
            fields["token_ids"] = choice.token_ids
        return fields


async def create_chat_completion(request: Request) -> Response:
    """One conversation in, one reply or stream out."""
    arrival_seconds = time.monotonic()
    parts: ServerParts = request.app.state.parts
    text_parts, facts = parts.admit()
    body = await read_body(request, ChatBody, parts.config.server.max_body_bytes)
    parts.check_model(body.model)
    refuse_unsupported(body)
    check_stream_options(body)
    params = chat_params(body, text_parts.description.default_sampling)
    authorization = request.headers.get("authorization")
    service = service_params(body, authorization, parts.config.engine.scheduler)
    prompt_text = render_prompt(
        text_parts,
        body.messages,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        template_kwargs=body.chat_template_kwargs,
    )
    # The template writes the special tokens itself.
    prompt_token_ids = await encode_text(
        text_parts, facts, prompt_text, add_special_tokens=bool(body.add_special_tokens), param="messages"
    )
    generation = Generation(
        parts.front,
        text_parts.tokenizer,
        [prompt_token_ids],
        params,
        bad_words_token_ids=await encode_bad_words(text_parts, params.bad_words),
        service=service,
        arrival_seconds=arrival_seconds,
    )
    logprobs = LogprobFormat(text_parts.tokenizer, as_token_ids=bool(body.return_tokens_as_token_ids))
    return await answer(request, body, generation, ChatFormat(body, logprobs), id_prefix="chatcmpl")


def render_prompt(
    text_parts: TextParts,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool | None,
    continue_final_message: bool | None,
    template_kwargs: dict[str, Any] | None,
) -> str:
    """The conversation as the model's own template writes it.

    Raises:
        RequestError: the model has no template, or the messages or options do not fit it.
    """
    if text_parts.chat_template is None:
        raise RequestError(
            "the served model has no chat template; use /v1/completions, or start the server with "
            "--chat-template",
            param="messages",
        )
    if not messages:
        raise RequestError("messages is empty; it must have at least one", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise RequestError(
            f"messages has {len(messages)} entries; the limit is {MAX_MESSAGES}", param="messages"
        )
    if continue_final_message and add_generation_prompt:
        raise RequestError(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )
    reserved = _RESERVED_TEMPLATE_NAMES.intersection(template_kwargs or ())
    if reserved:
        raise RequestError(
            f"chat_template_kwargs may not set {sorted(reserved)[0]!r}", param="chat_template_kwargs"
        )
    return text_parts.chat_template.render(
        [_template_message(message) for message in messages],
        add_generation_prompt=not continue_final_message
        if add_generation_prompt is None
        else add_generation_prompt,
        continue_final_message=bool(continue_final_message),
        template_kwargs=template_kwargs,
    )


def _template_message(message: Message) -> dict[str, Any]:
    """A message as templates know it: role, content and, where given, name and reasoning."""
    try:
        refuse_unsupported(message)
    except RequestError as error:
        raise RequestError(f"in messages: {error}", param="messages") from None
    if message.role == "tool":
        raise RequestError("in messages: the role 'tool' is not supported by this server", param="messages")
    if message.content is None:
        raise RequestError(f"a message of the {message.role} has no content", param="messages")
    content: str | list[dict[str, Any]] = (
        message.content if isinstance(message.content, str) else list(map(_template_part, message.content))
    )
    fields: dict[str, Any] = {"role": message.role, "content": content}
    for name in ("name", "reasoning", "reasoning_content"):
        value = getattr(message, name)
        if value is not None:
            fields[name] = value
    return fields


def _template_part(part: ContentPart) -> dict[str, Any]:
    if part.type not in ("text", "input_text"):
        raise RequestError(
            f"in messages: a content part of type {part.type[:40]!r} is not supported; only text is",
            param="messages",
        )
    if part.text is None:
        raise RequestError("in messages: a text part has no text", param="messages")
    return {"type": "text", "text": part.text}
