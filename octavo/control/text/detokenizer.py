"""Turns one output sequence into text as its tokens come. Never gives out a part of a character.

Tokens are spelled as bytes and run through an incremental UTF-8 decoder: constant work per token, and
the text of all pushes is, byte for byte, that of decoding the whole output at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from octavo.control.text.tokenizer import Tokenizer

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Text of one growing sequence of tokens.

    Args:
        prompt_token_ids: what stands before the output: a word at the very start of a text loses the
            space that encoding would have put there, a word that follows a prompt keeps it.
        skip_special_tokens: leave special tokens out.
        spaces_between_special_tokens: else put a space between two special tokens in a row.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = False,
    ) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._special_token_ids = tokenizer.special_token_ids
        self._skips = skip_special_tokens
        self._spaces = spaces_between_special_tokens
        self._decoder = _new_utf8_decoder(errors="replace")
        self._last_was_special = False
        self._strips_next_space = (
            tokenizer.strips_leading_space
            and skip_special_tokens
            and all(token_id in tokenizer.special_token_ids for token_id in prompt_token_ids)
        )

    def push(self, token_id: int) -> str:
        """The text that one more token completes; "" while a character is not whole yet."""
        is_special = token_id in self._special_token_ids
        if is_special and self._skips:
            return ""
        data = self._token_bytes(token_id)
        if self._strips_next_space and data:
            data = data.removeprefix(b" ")
            self._strips_next_space = False
        if self._spaces and is_special and self._last_was_special:
            data = b" " + data
        self._last_was_special = is_special
        return self._decoder.decode(data)

    def flush(self) -> str:
        """U+FFFD for a character that will not be completed any more, or ""."""
        return self._decoder.decode(b"", final=True)
