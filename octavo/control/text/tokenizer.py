"""The tokenizer: text to token ids and back, for one model.

Encoding is the `tokenizers` library's; decoding is done here, token by token, so that streamed text and
text decoded at once agree to the byte. Safe to use from several threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.control.text.folder_tokenizer import read_folder_tokenizer
from octavo.control.text.gguf_tokenizer import read_gguf_tokenizer
from octavo.control.text.tokenizer_parts import TokenizerParts
from octavo.errors import RequestError

# The library's `encode` holds the interpreter's lock all the while, its batch form does not: with a text
# of this many characters or more that would be felt by every other thread.
_LONG_TEXT_CHARS = 4096


class Tokenizer:
    """One model's tokenizer.

    Attributes:
        vocab_size: highest token id that has a text, plus one; the model's own may be larger (padding).
        bos_token_id, eos_token_id: as the tokenizer names them, or None.
        special_token_ids: tokens with a meaning for the model instead of a text.
        named_tokens: "bos_token", "eos_token"... -> the token's text.
        strips_leading_space: whether the first space of a decoded text is the tokenizer's own doing.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        self._backend = parts.backend
        self._find_token = parts.find_token
        self._spelling = parts.spelling
        self._added_token_ids = parts.added_token_ids
        self._prefix_ids, self._suffix_ids = parts.prefix_ids, parts.suffix_ids
        # Spelled when first needed: most of a vocabulary never is.
        self._bytes_by_id: dict[int, bytes] = {}
        self.vocab_size = parts.vocab_size
        self.bos_token_id = parts.bos_token_id
        self.eos_token_id = parts.eos_token_id
        self.special_token_ids = parts.special_token_ids
        self.named_tokens = parts.named_tokens
        self.strips_leading_space = parts.spelling.strips_leading_space

    @classmethod
    def load(cls, source: ModelSource) -> Tokenizer:
        """Read a model's tokenizer.

        Raises:
            CheckpointError: it is missing or damaged.
            UnsupportedModelError: it is of a kind that Octavo does not read.
        """
        if source.kind is SourceKind.GGUF:
            return cls(read_gguf_tokenizer(source.path))
        return cls(read_folder_tokenizer(source.path))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, for programs that read Hugging Face folders."""
        self._backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.named_tokens}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Text -> token ids. The text of a special token becomes that token.

        Args:
            add_special_tokens: put BOS or EOS around the text where the model was trained so.

        Raises:
            RequestError: the text holds half of a surrogate pair, which is no character.
        """
        try:
            if len(text) < _LONG_TEXT_CHARS:
                token_ids = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
            else:
                batch = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
                token_ids = batch[0].ids
        except (TypeError, UnicodeEncodeError):
            raise RequestError("the text holds a lone surrogate, which is no Unicode character") from None
        return [*self._prefix_ids, *token_ids, *self._suffix_ids] if add_special_tokens else token_ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Token ids -> text; bytes that are no UTF-8 become U+FFFD."""
        skipped = self.special_token_ids if skip_special_tokens else frozenset()
        data = b"".join([self.token_bytes(token_id) for token_id in token_ids if token_id not in skipped])
        if self.strips_leading_space:
            data = data.removeprefix(b" ")
        return data.decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one token; none for an id that has no text (a model's padding)."""
        spelled = self._bytes_by_id.get(token_id)
        if spelled is None:
            token = self._find_token(token_id)
            is_added = token_id in self._added_token_ids
            spelled = b"" if token is None else self._spelling.spell(token, is_added=is_added)
            self._bytes_by_id[token_id] = spelled
        return spelled

    def token_text(self, token_id: int) -> str:
        """The text of one token alone, special or not; U+FFFD for a part of a character."""
        return self.token_bytes(token_id).decode(errors="replace")
