"""How a vocabulary spells bytes: the rule that turns one token's text into the bytes it stands for.

A tokenizer's own decoder works on whole sequences; spelling each token alone is what makes streaming
cheap and exact. Decoders that cannot be expressed so are refused by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import UnsupportedModelError

_SPACE_MARK = "\u2581"  # SentencePiece's visible space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_of_letter() -> dict[str, int]:
    """Letter -> byte of GPT-2's byte-level BPE: printable Latin-1 stands for itself, and the other
    bytes, in order, are the letters from U+0100 on (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_LETTER = _byte_of_letter()


@dataclass(frozen=True, slots=True)
class TokenSpelling:
    """One vocabulary's rule.

    Attributes:
        is_byte_level: each letter of a token is a byte (GPT-2); else tokens are text.
        has_space_mark: U+2581 in a token stands for a space (SentencePiece).
        has_byte_tokens: a token <0xNN> is that byte (SentencePiece's byte fallback).
        strips_leading_space: encoding puts a space before the text, so decoding takes one away.
    """

    is_byte_level: bool = False
    has_space_mark: bool = False
    has_byte_tokens: bool = False
    strips_leading_space: bool = False

    def spell(self, token: str, *, is_added: bool) -> bytes:
        """The bytes of one token. Added tokens are written as plain text in any vocabulary."""
        if self.is_byte_level and not is_added:
            try:
                return bytes([_BYTE_OF_LETTER[letter] for letter in token])
            except KeyError:  # not written in the byte alphabet, so it can only be plain text
                return token.encode()
        if self.has_byte_tokens and not is_added:
            match = _BYTE_TOKEN.fullmatch(token)
            if match is not None:
                return bytes([int(match[1], 16)])
        if self.has_space_mark:
            token = token.replace(_SPACE_MARK, " ")
        return token.encode()


BYTE_LEVEL = TokenSpelling(is_byte_level=True)


def sentencepiece_spelling(*, strips_leading_space: bool) -> TokenSpelling:
    return TokenSpelling(has_space_mark=True, has_byte_tokens=True, strips_leading_space=strips_leading_space)


def parse_decoder(path: Path, decoder: dict[str, Any] | None) -> TokenSpelling:
    """The spelling that a tokenizer.json's `decoder` amounts to.

    Raises:
        UnsupportedModelError: it does more to tokens than spelling each of them.
    """
    if decoder is None:
        raise UnsupportedModelError(f"{path}: Octavo does not read tokenizers without a decoder")
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    found: dict[str, bool] = {}
    for step in steps:
        match step:
            case {"type": "ByteLevel"}:
                found["is_byte_level"] = True
            case {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}:
                found["has_space_mark"] = True
            case {"type": "ByteFallback"}:
                found["has_byte_tokens"] = True
            case {"type": "Fuse"}:
                pass
            case {"type": "Strip", "content": " ", "start": 1, "stop": 0} if step is steps[-1]:
                found["strips_leading_space"] = True
            case {"type": "Metaspace", "replacement": "\u2581"}:
                found["has_space_mark"] = True
                found["strips_leading_space"] = step.get("prepend_scheme", "always") != "never"
            case _:
                raise UnsupportedModelError(
                    f"{path}: Octavo does not read tokenizers with the decoder {json.dumps(step)[:120]}"
                )
    return TokenSpelling(**found)
