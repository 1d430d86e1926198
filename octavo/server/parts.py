"""ServerParts: what every endpoint needs, and the questions about it that they share."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from octavo.build import TextParts
from octavo.config import ServeConfig
from octavo.control.text.bad_words import bad_words_token_ids
from octavo.errors import EngineUnavailableError, RequestError, UnknownModelError
from octavo.messages import EngineReady
from octavo.observability.metrics import ServerMetrics
from octavo.server.front import Front

# Below this many characters encoding takes less time than going to another thread.
_ENCODE_INLINE_CHARS = 4096
# No known vocabulary has a longer token (they keep runs of spaces and dashes whole). More characters
# than this a token cannot fit the context, and are refused before the work of encoding them.
_MAX_TOKEN_CHARS = 1024
_FOREIGN_ID_CHARS = re.compile(r"[^A-Za-z0-9._-]+")
_FOREIGN_ID_LIMIT = 64


@dataclass
class ServerParts:
    """The parts of a running server.

    Attributes:
        text: tokenizer and template; None until they are loaded.
    """

    config: ServeConfig
    front: Front
    metrics: ServerMetrics
    text: TextParts | None = None
    created_seconds: int = field(default_factory=lambda: int(time.time()))

    @property
    def model_name(self) -> str:
        """The model's name in the API."""
        if self.config.server.served_model_name is not None:
            return self.config.server.served_model_name
        return "" if self.text is None else self.text.source.name

    def admit(self) -> tuple[TextParts, EngineReady]:
        """What a request needs to be read at all.

        Raises:
            EngineUnavailableError, OverloadedError: it cannot be taken just now.
        """
        facts = self.front.admit()
        if self.text is None:
            raise EngineUnavailableError("the tokenizer is still loading; try again in a moment")
        return self.text, facts

    def check_model(self, model: str | None) -> None:
        """None means the served model.

        Raises:
            UnknownModelError: the request names another one.
        """
        if model is not None and model != self.model_name:
            raise UnknownModelError(
                f"the model {model[:200]!r} is not served here; this server has {self.model_name!r}"
            )


async def encode_text(
    text_parts: TextParts, facts: EngineReady, text: str, *, add_special_tokens: bool, param: str
) -> list[int]:
    """Token ids of a text; long ones are encoded off the event loop.

    Raises:
        RequestError: the text cannot fit the context, however well it tokenises.
    """
    if len(text) <= _ENCODE_INLINE_CHARS:
        return text_parts.tokenizer.encode(text, add_special_tokens=add_special_tokens)
    if len(text) > facts.max_model_len * _MAX_TOKEN_CHARS:
        raise RequestError(
            f"{param} has {len(text)} characters; no {facts.max_model_len} tokens hold that many",
            param=param,
        )
    return await asyncio.to_thread(text_parts.tokenizer.encode, text, add_special_tokens=add_special_tokens)


async def encode_bad_words(text_parts: TextParts, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """`bad_words` as token sequences; off the event loop, as there may be a thousand of them."""
    if not words:
        return ()
    return await asyncio.to_thread(bad_words_token_ids, text_parts.tokenizer, words)


def make_reply_id(prefix: str, foreign_id: str | None) -> str:
    """An id of ours; what the client sent is kept only as a sanitised suffix."""
    own = f"{prefix}-{secrets.token_hex(12)}"
    if not foreign_id:
        return own
    suffix = _FOREIGN_ID_CHARS.sub("", foreign_id[: 4 * _FOREIGN_ID_LIMIT])[:_FOREIGN_ID_LIMIT]
    return f"{own}-{suffix}" if suffix else own
