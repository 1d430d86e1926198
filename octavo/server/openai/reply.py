"""From a Generation to an OpenAI reply: one JSON object, or a stream of chunks.

What differs between completions and chat stands behind ReplyFormat; ids, usage, framing and errors
in mid-stream are the same and stand here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from octavo.errors import OctavoError
from octavo.request import FinishReason, TokenLogprobs
from octavo.server.generation import ChoiceDelta, ClientGoneError, Generation
from octavo.server.openai.schema import StreamOptions
from octavo.server.replies import error_body, internal_fault

DONE = b"data: [DONE]\n\n"


@dataclass
class CollectedChoice:
    """All of one choice, for a reply in one piece."""

    choice_index: int
    prompt_index: int
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)


class ReplyFormat(Protocol):
    """What completions and chat write differently."""

    object_name: str
    chunk_object_name: str

    def opening_choice(self, choice_index: int) -> bytes | None:
        """A choice's first chunk before any of its text, as JSON; None for none."""

    def delta_choice(self, delta: ChoiceDelta, generation: Generation) -> bytes:
        """What a choice gained, as JSON."""

    def full_choice(self, choice: CollectedChoice, generation: Generation) -> dict[str, Any]:
        """A whole choice."""

    def full_fields(self, generation: Generation) -> dict[str, Any]:
        """Further top-level fields of a reply in one piece, and of a stream's first chunk."""


@dataclass(frozen=True)
class ReplyHead:
    """The fields that open every object of one reply."""

    reply_id: str
    model: str
    created_seconds: int = field(default_factory=lambda: int(time.time()))

    def fields(self, object_name: str) -> dict[str, Any]:
        return {
            "id": self.reply_id,
            "object": object_name,
            "created": self.created_seconds,
            "model": self.model,
            "system_fingerprint": None,
        }


@dataclass(frozen=True)
class UsageOptions:
    """When a stream tells its usage."""

    at_end: bool = False
    on_each_chunk: bool = False

    @classmethod
    def of(cls, options: StreamOptions | None) -> UsageOptions:
        if options is None:
            return cls()
        return cls(bool(options.include_usage), bool(options.continuous_usage_stats))


def usage(generation: Generation) -> dict[str, Any]:
    """Tokens so far, each prompt counted once however many choices it has; of `best_of`, what was
    generated counts, returned or not."""
    num_prompt_tokens, num_output_tokens = generation.num_prompt_tokens, generation.num_output_tokens
    fields = {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_output_tokens,
        "total_tokens": num_prompt_tokens + num_output_tokens,
        "prompt_tokens_details": {"cached_tokens": generation.num_cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    if generation.kv_sharing is not None:
        fields["kv_sharing"] = round(generation.kv_sharing, 4)
    return fields


async def full_reply(generation: Generation, head: ReplyHead, reply_format: ReplyFormat) -> dict[str, Any]:
    """The reply in one piece. Raises OctavoError: the request failed."""
    num_sequences = generation.params.n
    choices = [
        CollectedChoice(choice_index, choice_index // num_sequences)
        for choice_index in range(generation.num_choices)
    ]
    async for deltas in generation.deltas():
        for delta in deltas:
            choice = choices[delta.choice_index]
            choice.texts.append(delta.text)
            choice.token_ids.extend(delta.token_ids)
            choice.logprobs.extend(delta.logprobs)
            if delta.finish_reason is not None:
                choice.finish_reason, choice.stop_reason = delta.finish_reason, delta.stop_reason
    return {
        **head.fields(reply_format.object_name),
        "choices": [reply_format.full_choice(choice, generation) for choice in choices],
        "usage": usage(generation),
        **reply_format.full_fields(generation),
    }


async def stream_reply(
    generation: Generation, head: ReplyHead, reply_format: ReplyFormat, options: UsageOptions
) -> AsyncIterator[bytes]:
    """The reply as server-sent events, ending with `[DONE]`; a failure comes as an event before it."""
    # The part of a chunk that never changes is encoded once: what remains per token is one JSON
    # string and two concatenations.
    head_json = msgspec.json.encode(head.fields(reply_format.chunk_object_name))
    start = b"data: " + head_json[:-1] + b',"choices":['
    end = b'],"usage":null}\n\n' if options.at_end else b"]}\n\n"

    def finish_chunk() -> bytes:
        if options.on_each_chunk:
            return b'],"usage":' + msgspec.json.encode(usage(generation)) + b"}\n\n"
        return end

    try:
        openings = [
            opening
            for choice_index in range(generation.num_choices)
            if (opening := reply_format.opening_choice(choice_index)) is not None
        ]
        first_fields = msgspec.json.encode(reply_format.full_fields(generation))[1:-1]
        if first_fields:
            start_first = b"data: " + head_json[:-1] + b"," + first_fields + b',"choices":['
            yield start_first + b",".join(openings[:1]) + finish_chunk()
            openings = openings[1:]
        if openings:
            yield b"".join(start + opening + finish_chunk() for opening in openings)
        async for deltas in generation.deltas():
            yield b"".join(
                [start + reply_format.delta_choice(delta, generation) + finish_chunk() for delta in deltas]
            )
        if options.at_end:
            yield start + b'],"usage":' + msgspec.json.encode(usage(generation)) + b"}\n\n"
    except ClientGoneError:
        return
    except OctavoError as error:
        yield error_event(error)
    except Exception as error:
        yield error_event(internal_fault(error))
    yield DONE


def error_event(error: OctavoError) -> bytes:
    """An error in mid-stream, where the HTTP status can no longer say it."""
    return b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n"
