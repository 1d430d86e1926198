"""Builds a tokenizer from a Hugging Face folder: tokenizer.json, or vocab.json and merges.txt.

tokenizer_config.json, special_tokens_map.json and added tokens count as they do in transformers 5: where
there is a tokenizer.json, it alone says what is put around prompts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as EncoderBackend
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer

from octavo.checkpoint.json_file import read_json_object
from octavo.control.text.pre_tokenizer import GPT2_PRE, QWEN2_PRE, WORD_SPLITS, WordSplit
from octavo.control.text.token_spelling import parse_decoder
from octavo.control.text.tokenizer_parts import TokenizerParts
from octavo.errors import CheckpointError, UnsupportedModelError

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Which cut a vocab.json was made for, by tokenizer_class, or by config.json's model_type without one.
_PRE_BY_CLASS = {"GPT2Tokenizer": GPT2_PRE, "Qwen2Tokenizer": QWEN2_PRE}
_PRE_BY_FAMILY = {"gpt2": GPT2_PRE, "opt": GPT2_PRE, "qwen2": QWEN2_PRE, "qwen3": QWEN2_PRE}


def read_folder_tokenizer(folder: Path) -> TokenizerParts:
    """Read the tokenizer of a Hugging Face folder.

    Raises:
        CheckpointError: it is missing or damaged.
        UnsupportedModelError: it is of a kind that Octavo does not read.
    """
    config = _read_optional(folder / "tokenizer_config.json")
    has_backend_file = (folder / "tokenizer.json").is_file()
    if has_backend_file:
        backend = _load_backend(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        backend = _build_byte_level(folder, config)
    elif (folder / "tokenizer.model").is_file():
        raise UnsupportedModelError(
            f"{folder / 'tokenizer.model'}: Octavo does not read SentencePiece files; save the same "
            "tokenizer as tokenizer.json (transformers: AutoTokenizer.from_pretrained().save_pretrained())"
        )
    else:
        raise CheckpointError(folder, "has no tokenizer.json (nor vocab.json and merges.txt)")
    _add_listed_tokens(folder / "tokenizer_config.json", backend, config)
    named_ids = _find_named_ids(folder, backend, config)
    backend.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in _missing_specials(backend, named_ids)]
    )
    parts = _describe(folder, backend, named_ids)
    if has_backend_file:
        return parts

    def frame_ids(name: str) -> tuple[int, ...]:
        return (named_ids[name],) if config.get(f"add_{name}") is True and name in named_ids else ()

    return replace(parts, prefix_ids=frame_ids("bos_token"), suffix_ids=frame_ids("eos_token"))


def _read_optional(path: Path) -> dict[str, object]:
    return read_json_object(path) if path.is_file() else {}


def _load_backend(path: Path) -> EncoderBackend:
    try:
        backend = EncoderBackend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for anything it cannot read
        reason = f"not a tokenizer that can be read: {str(error).splitlines()[0]}"
        raise CheckpointError(path, reason) from None
    # Left over from training in many files; a prompt must come out whole, and no longer than it is.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _build_byte_level(folder: Path, config: dict[str, object]) -> EncoderBackend:
    """Byte-level BPE from the two files of GPT-2."""
    entries = read_json_object(folder / "vocab.json")
    vocab = {token: index for token, index in entries.items() if isinstance(index, int) and index >= 0}
    if len(vocab) != len(entries):
        raise CheckpointError(folder / "vocab.json", "has entries that are not token ids")
    path = folder / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read: {error}") from None
    lines = [line for line in lines[lines[0].startswith("#version") :] if line]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    split = WORD_SPLITS[_find_pre(folder, config)]
    try:
        backend = EncoderBackend(models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # the library raises bare Exception, with the merge at fault
        raise CheckpointError(path, f"does not fit vocab.json: {error}") from None
    if split.composes:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = split.build()
    if config.get("add_prefix_space") is True:
        backend.pre_tokenizer = _prefix_space_pre_tokenizer(folder, split)
    backend.decoder = decoders.ByteLevel()
    return backend


def _prefix_space_pre_tokenizer(folder: Path, split: WordSplit) -> PreTokenizer:
    """GPT-2's cut of a text before which a space is put; the library has it ready-made."""
    if split is not WORD_SPLITS[GPT2_PRE]:
        raise UnsupportedModelError(f"{folder}: Octavo does not read this vocabulary with add_prefix_space")
    return ByteLevel(add_prefix_space=True)


def _find_pre(folder: Path, config: dict[str, object]) -> str:
    class_name = config.get("tokenizer_class")
    if isinstance(class_name, str):
        pre = _PRE_BY_CLASS.get(class_name.removesuffix("Fast"))
    else:
        class_name = _read_optional(folder / "config.json").get("model_type")
        pre = _PRE_BY_FAMILY.get(class_name) if isinstance(class_name, str) else None
    if pre is None:
        raise UnsupportedModelError(
            f"{folder}: Octavo does not know how {class_name!r} cuts text; add the model's tokenizer.json"
        )
    return pre


def _add_listed_tokens(path: Path, backend: EncoderBackend, config: dict[str, object]) -> None:
    """Add the tokens of `added_tokens_decoder` (id -> token) that the backend lacks."""
    listed = config.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict):
        raise CheckpointError(path, "added_tokens_decoder is not an object")
    known = backend.get_added_tokens_decoder()
    for key, entry in sorted(listed.items(), key=lambda item: (len(item[0]), item[0])):
        if not key.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise CheckpointError(path, f"added_tokens_decoder[{key!r}] is not a token")
        if int(key) in known:
            continue
        options = {name: entry.get(name) is True for name in ("single_word", "lstrip", "rstrip", "special")}
        options["normalized"] = entry.get("normalized", not options["special"]) is True
        token = AddedToken(entry["content"], **options)
        backend.add_tokens([token])
        if backend.token_to_id(token.content) != int(key):
            raise CheckpointError(path, f"added_tokens_decoder[{key!r}] does not fit the vocabulary")


def _find_named_ids(folder: Path, backend: EncoderBackend, config: dict[str, object]) -> dict[str, int]:
    """Token ids of bos_token, eos_token...; one that the vocabulary lacks counts as not there."""
    named = {**_read_optional(folder / "special_tokens_map.json"), **config}
    found: dict[str, int] = {}
    for name in _NAMES:
        entry = named.get(name)
        text = entry.get("content") if isinstance(entry, dict) else entry
        token_id = backend.token_to_id(text) if isinstance(text, str) else None
        if token_id is not None:
            found[name] = token_id
    return found


def _missing_specials(backend: EncoderBackend, named_ids: dict[str, int]) -> list[str]:
    """Named tokens that are in the vocabulary, but not yet found whole in text."""
    known = backend.get_added_tokens_decoder()
    missing = [backend.id_to_token(token_id) for token_id in named_ids.values() if token_id not in known]
    return [text for text in dict.fromkeys(missing) if text is not None]


def _describe(folder: Path, backend: EncoderBackend, named_ids: dict[str, int]) -> TokenizerParts:
    # The library shows a decoder's settings only as its pickled state, which is JSON.
    decoder = backend.decoder
    state = None if decoder is None else json.loads(decoder.__getstate__())
    added = backend.get_added_tokens_decoder()
    vocab_size = backend.get_vocab_size(with_added_tokens=True)
    if backend.id_to_token(vocab_size - 1) is None:  # the ids have holes
        vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
    named_tokens = {name: backend.id_to_token(token_id) for name, token_id in named_ids.items()}
    return TokenizerParts(
        backend=backend,
        find_token=backend.id_to_token,
        spelling=parse_decoder(folder / "tokenizer.json", state),
        vocab_size=vocab_size,
        added_token_ids=frozenset(added),
        special_token_ids=frozenset(index for index, token in added.items() if token.special)
        | frozenset(named_ids.values()),
        named_tokens={name: text for name, text in named_tokens.items() if text is not None},
        bos_token_id=named_ids.get("bos_token"),
        eos_token_id=named_ids.get("eos_token"),
    )
