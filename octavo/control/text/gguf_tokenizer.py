"""Builds a tokenizer from a GGUF file's metadata: byte-level BPE ("gpt2") and SentencePiece ("llama").

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, section Tokenizer. What the file does
not say is taken as llama.cpp takes it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as EncoderBackend

from octavo.checkpoint.gguf import GgufFile
from octavo.control.text.pre_tokenizer import WORD_SPLITS
from octavo.control.text.token_spelling import BYTE_LEVEL, TokenSpelling, sentencepiece_spelling
from octavo.control.text.tokenizer_parts import TokenizerParts
from octavo.errors import CheckpointError, UnsupportedModelError
from octavo.families.config_reader import ConfigReader

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # values of tokenizer.ggml.token_type

_NAMED_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_SENTENCEPIECE_IDS = {"bos_token": 1, "eos_token": 2, "unk_token": 0}  # unless the file says otherwise


def read_gguf_tokenizer(path: Path) -> TokenizerParts:
    """Read the tokenizer that a GGUF file carries.

    Raises:
        CheckpointError: it is missing or damaged.
        UnsupportedModelError: it is of a kind that Octavo does not read.
    """
    with GgufFile(path) as file:
        return _GgufVocabulary(path, file).build()


class _GgufVocabulary:
    """The `tokenizer.ggml.*` entries of one file."""

    def __init__(self, path: Path, file: GgufFile) -> None:
        self._path = path
        self._reader = ConfigReader(path, file.metadata, prefix=_PREFIX)
        self._tokens = self._reader.find_texts("tokens") or []
        if not self._tokens:
            raise CheckpointError(path, f"{_PREFIX}tokens is missing: the file has no tokenizer")
        self._types = self._numbers(file, "token_type") or [_NORMAL] * len(self._tokens)
        self._scores = self._numbers(file, "scores")
        self._vocab = {token: index for index, token in enumerate(self._tokens)}

    def build(self) -> TokenizerParts:
        kind = self._reader.find_text("model")
        named_ids = self._named_ids(kind)
        adds_bos = kind == "llama"
        match kind:
            case "gpt2":
                backend, adds_bos = self._build_byte_level()
                spelling = BYTE_LEVEL
            case "llama":
                backend, spelling = self._build_sentencepiece(named_ids.get("unk_token"))
            case _:
                raise UnsupportedModelError(
                    f"{self._path}: Octavo does not read GGUF tokenizers of the kind {kind!r} "
                    "(it reads 'gpt2' and 'llama'); name a folder with a tokenizer.json by --tokenizer"
                )
        special_token_ids = self._add_whole_tokens(backend, named_ids)
        added_token_ids = {index for index, kind in enumerate(self._types) if kind == _USER_DEFINED}
        tokens = self._tokens
        return TokenizerParts(
            backend=backend,
            find_token=lambda token_id: tokens[token_id] if 0 <= token_id < len(tokens) else None,
            spelling=spelling,
            vocab_size=len(tokens),
            added_token_ids=special_token_ids | added_token_ids,
            special_token_ids=special_token_ids,
            named_tokens={name: tokens[token_id] for name, token_id in named_ids.items()},
            bos_token_id=named_ids.get("bos_token"),
            eos_token_id=named_ids.get("eos_token"),
            prefix_ids=self._frame_ids("bos", named_ids, default=adds_bos),
            suffix_ids=self._frame_ids("eos", named_ids, default=False),
        )

    def _build_byte_level(self) -> tuple[EncoderBackend, bool]:
        """The backend, and whether such vocabularies begin prompts with BOS."""
        pre = self._reader.find_text("pre") or "default"
        split = WORD_SPLITS.get(pre)
        if split is None:
            raise UnsupportedModelError(
                f"{self._path}: Octavo does not know how {_PREFIX}pre = {pre!r} cuts text "
                f"(known: {', '.join(WORD_SPLITS)}); name a folder with a tokenizer.json by --tokenizer"
            )
        texts = self._reader.find_texts("merges")
        if texts is None:
            raise CheckpointError(self._path, f"{_PREFIX}merges is missing")
        merges = [(left, right) for left, _, right in (text.partition(" ") for text in texts)]
        backend = EncoderBackend(self._bpe(merges, ignore_merges=split.ignores_merges))
        if split.composes:
            backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = split.build()
        return backend, split.adds_bos

    def _build_sentencepiece(self, unknown_id: int | None) -> tuple[EncoderBackend, TokenSpelling]:
        add_space_prefix = self._reader.flag("add_space_prefix", default=True)
        backend = EncoderBackend(
            self._bpe(
                self._merges_from_scores(),
                byte_fallback=True,
                fuse_unk=True,
                unk_token=None if unknown_id is None else self._tokens[unknown_id],
            )
        )
        mark_spaces = normalizers.Replace(" ", "\u2581")
        backend.normalizer = (
            normalizers.Sequence([normalizers.Prepend("\u2581"), mark_spaces])
            if add_space_prefix
            else mark_spaces
        )
        return backend, sentencepiece_spelling(strips_leading_space=add_space_prefix)

    def _merges_from_scores(self) -> list[tuple[str, str]]:
        """SentencePiece joins the pair whose whole has the highest score: the merges that this implies,
        best first. (Only the ranking matters, so each way to halve a token is one merge.)"""
        if self._scores is None:
            raise CheckpointError(self._path, f"{_PREFIX}scores is missing")
        parts = {
            token: self._scores[index]
            for index, token in enumerate(self._tokens)
            if self._types[index] in (_NORMAL, _USER_DEFINED)
        }
        ranked = [
            (-score, len(whole[:cut]), whole[:cut], whole[cut:])
            for whole, score in parts.items()
            for cut in range(1, len(whole))
            if whole[:cut] in parts and whole[cut:] in parts
        ]
        ranked.sort(key=lambda merge: merge[:2])
        return [(left, right) for _, _, left, right in ranked]

    def _bpe(
        self,
        merges: list[tuple[str, str]],
        *,
        ignore_merges: bool = False,
        byte_fallback: bool = False,
        fuse_unk: bool = False,
        unk_token: str | None = None,
    ) -> models.BPE:
        try:
            return models.BPE(
                vocab=self._vocab,
                merges=merges,
                ignore_merges=ignore_merges,
                byte_fallback=byte_fallback,
                fuse_unk=fuse_unk,
                unk_token=unk_token,
            )
        except Exception as error:  # the library raises bare Exception, with the merge at fault
            raise CheckpointError(self._path, f"{_PREFIX}merges do not fit the tokens: {error}") from None

    def _add_whole_tokens(self, backend: EncoderBackend, named_ids: dict[str, int]) -> frozenset[int]:
        """Make the backend find control and user-defined tokens whole; return the special ones."""
        special_ids = {index for index, kind in enumerate(self._types) if kind in (_CONTROL, _UNKNOWN)}
        special_ids |= {named_ids[name] for name in ("bos_token", "eos_token") if name in named_ids}
        user_ids = [index for index, kind in enumerate(self._types) if kind == _USER_DEFINED]
        backend.add_special_tokens(
            [AddedToken(self._tokens[i], normalized=False, special=True) for i in sorted(special_ids)]
        )
        backend.add_tokens([AddedToken(self._tokens[i], normalized=False) for i in user_ids])
        return frozenset(special_ids)

    def _named_ids(self, kind: str | None) -> dict[str, int]:
        """Token ids of bos_token, eos_token..., as far as there are such tokens."""
        last = len(self._tokens) - 1
        named: dict[str, int] = {}
        for name, key in _NAMED_IDS.items():
            token_id = self._reader.find_int(key, low=0, high=last)
            if token_id is None and kind == "llama":
                token_id = _SENTENCEPIECE_IDS.get(name)
            if token_id is not None and token_id <= last:
                named[name] = token_id
        return named

    def _frame_ids(self, name: str, named_ids: dict[str, int], *, default: bool) -> tuple[int, ...]:
        """What to put at one end of prompts: the token "bos" or "eos", if the file wants it there."""
        if not self._reader.flag(f"add_{name}_token", default=default):
            return ()
        token_id = named_ids.get(f"{name}_token")
        if token_id is None:
            raise CheckpointError(self._path, f"{_PREFIX}{name}_token_id is missing, but prompts need it")
        return (token_id,)

    def _numbers(self, file: GgufFile, key: str) -> Sequence[float] | None:
        """One number per token, or None where the file has none."""
        values = file.metadata.get(f"{_PREFIX}{key}")
        if values is None:
            return None
        # Of all that metadata can be, only a list of numbers is an array.
        if not isinstance(values, array) or len(values) != len(self._tokens):
            reason = f"{_PREFIX}{key} is not a list of {len(self._tokens)} numbers, one for each token"
            raise CheckpointError(self._path, reason)
        return values
