"""Turns words that a client does not want to see into the token sequences that write them."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.control.text.tokenizer import Tokenizer


def bad_words_token_ids(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token sequences that may not be completed, in order and without doubles.

    As vLLM has it: each word as it begins a text and, where a space before it makes another first token
    and no more tokens, as it stands within one.
    """
    sequences: dict[tuple[int, ...], None] = {}
    for word in words:
        bare = word.lstrip() or word
        at_start = tuple(tokenizer.encode(bare, add_special_tokens=False))
        within = tuple(tokenizer.encode(f" {bare}", add_special_tokens=False))
        if at_start:
            sequences[at_start] = None
        if within and len(within) == len(at_start) and within[0] != at_start[0]:
            sequences[within] = None
    return tuple(sequences)
