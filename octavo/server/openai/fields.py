"""Which values of unsupported fields mean "off", and the refusal of all others by name."""

from __future__ import annotations

from functools import cache

import msgspec

from octavo.errors import RequestError
from octavo.server.openai.schema import Unsupported

# Values besides null that ask for what happens anyway.
NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "service_tier": ("auto", "default"),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "echo": (False,),
    "include_reasoning": (True,),
    "verbosity": ("medium",),
    "suffix": ("",),
    "stream_interval": (1,),
    "documents": ([],),
    "tool_calls": ([],),
    "logprob_token_ids": ([],),
}

_REMEDIES = {
    "suffix": "this server does not fill in the middle; send the text before the gap as prompt",
    "chat_template": "the template is the model's own; start the server with --chat-template to change it",
}


def refuse_unsupported(body: msgspec.Struct) -> None:
    """Refuse fields with a value that would have to change the output but cannot.

    Raises:
        RequestError: names the field.
    """
    for name in unsupported_fields(type(body)):
        value = getattr(body, name)
        if value is None or any(_is_same(value, neutral) for neutral in NEUTRAL_VALUES.get(name, ())):
            continue
        remedy = _REMEDIES.get(name, "leave it out or set it to null")
        raise RequestError(f"{name} is not supported by this server: {remedy}", param=name)


@cache
def unsupported_fields(body_type: type[msgspec.Struct]) -> tuple[str, ...]:
    """Names of the struct's fields typed `Unsupported`."""
    return tuple(each.encode_name for each in msgspec.structs.fields(body_type) if each.type == Unsupported)


def _is_same(value: object, neutral: object) -> bool:
    # True == 1 in Python, but not for a client.
    return type(value) is type(neutral) and value == neutral
