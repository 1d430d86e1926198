"""Prompts of the offline API: the shapes in which a caller may give one, and what the engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import RequestError


class TextPrompt(TypedDict):
    """A prompt as text; the tokenizer adds BOS where the model was trained so."""

    prompt: str


class TokensPrompt(TypedDict):
    """A prompt as token ids, taken as they are. `prompt`, if given, is only carried to the output."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]


Prompt = str | TextPrompt | TokensPrompt


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the engine takes it; `text` is None where only token ids were given."""

    text: str | None
    token_ids: list[int]

    def as_prompt(self) -> TokensPrompt:
        """The same as a caller would give it."""
        if self.text is None:
            return {"prompt_token_ids": self.token_ids}
        return {"prompt_token_ids": self.token_ids, "prompt": self.text}


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer) -> EncodedPrompt:
    """Raises RequestError: it has none of the shapes."""
    fields: Mapping[str, object] = {"prompt": prompt} if isinstance(prompt, str) else prompt
    if not isinstance(fields, Mapping) or not {"prompt", "prompt_token_ids"} >= set(fields) or not fields:
        raise RequestError(
            'a prompt must be text, {"prompt": text} or {"prompt_token_ids": [...]}', param="prompt"
        )
    text, token_ids = fields.get("prompt"), fields.get("prompt_token_ids")
    if text is not None and not isinstance(text, str):
        raise RequestError(f"prompt must be text, not {type(text).__name__}", param="prompt")
    if token_ids is None:
        return EncodedPrompt(text, tokenizer.encode(text or ""))
    if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Sequence):
        raise RequestError("prompt_token_ids must be a list of token ids", param="prompt_token_ids")
    return EncodedPrompt(text, list(token_ids))


def pinnable_tokens(num_tokens: int, block_size: int) -> int:
    """How many tokens of a prompt can be pinned in the cache: its whole blocks.

    Raises:
        RequestError: none.
    """
    if num_tokens < block_size:
        raise RequestError(
            f"the prompt has {num_tokens} tokens; what can be pinned are whole blocks of {block_size}",
            param="prompt",
        )
    return num_tokens - num_tokens % block_size
