"""What a tokenizer is made of, whichever files it came from. Plain data; owns no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Tokenizer as EncoderBackend

from octavo.control.text.token_spelling import TokenSpelling


@dataclass(frozen=True, kw_only=True)
class TokenizerParts:
    """A loaded tokenizer, before it is wrapped.

    Attributes:
        backend: encodes text; its special tokens and word cutting are set up.
        find_token: token id -> the token as the vocabulary writes it, or None where there is none.
        spelling: how the vocabulary writes bytes.
        vocab_size: highest token id plus one.
        added_token_ids: tokens that are matched whole in the text and written as plain text.
        special_token_ids: tokens with a meaning for the model instead of a text.
        named_tokens: "bos_token", "eos_token"... -> the token's text, for chat templates.
        prefix_ids, suffix_ids: put around a text that is encoded with special tokens, beside what the
            backend does of its own.
    """

    backend: EncoderBackend
    find_token: Callable[[int], str | None]
    spelling: TokenSpelling
    vocab_size: int
    added_token_ids: frozenset[int]
    special_token_ids: frozenset[int]
    named_tokens: dict[str, str]
    bos_token_id: int | None
    eos_token_id: int | None
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
