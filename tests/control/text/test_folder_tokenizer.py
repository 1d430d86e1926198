"""Tokenizers from Hugging Face folders, against transformers' own reading of the same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as EncoderBackend
from tokenizers import decoders, processors
from transformers import AutoTokenizer

from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import CheckpointError, RequestError, UnsupportedModelError

TEXTS = ["", "Hello world", " the dog's 1234  x\n", "<s>a</s> b<pad>", "\u65e5\u672c caf\u00e9 \U0001f600"]


def load(folder: Path) -> Tokenizer:
    return Tokenizer.load(ModelSource("tiny", folder, SourceKind.FOLDER))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def write_opt_folder(folder: Path, backend: EncoderBackend, **config: object) -> None:
    """vocab.json and merges.txt with OPT's settings: prompts begin with </s>."""
    backend.model.save(str(folder))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": {"content": "</s>", "__type": "AddedToken"},
            "eos_token": {"content": "</s>", "__type": "AddedToken"},
            "unk_token": "</s>",
            "pad_token": "<pad>",
            "add_bos_token": True,
            **config,
        },
    )
    write_json(folder / "config.json", {"model_type": "opt"})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_comes_back(byte_level: Tokenizer, text: str) -> None:
    assert byte_level.decode(byte_level.encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "flags", [{}, {"add_bos_token": True}, {"add_eos_token": True, "add_bos_token": None}]
)
@pytest.mark.parametrize("has_template", [False, True])
def test_tokenizer_json_agrees_with_transformers(
    tmp_path: Path, byte_level_backend: EncoderBackend, flags: dict[str, Any], has_template: bool
) -> None:
    backend = EncoderBackend.from_str(byte_level_backend.to_str())
    if has_template:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    backend.enable_truncation(8)
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "__type": "AddedToken"},
        "added_tokens_decoder": {"400": {"content": "<tool>", "special": False}},
        **flags,
    }
    write_json(tmp_path / "tokenizer_config.json", config)
    tokenizer = load(tmp_path)
    reference = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in [*TEXTS, "a<tool>b"]:
        token_ids = tokenizer.encode(text)
        assert token_ids == reference.encode(text, truncation=False)
        assert tokenizer.decode(token_ids) == reference.decode(token_ids, skip_special_tokens=True)
        plain_ids = tokenizer.encode(text, add_special_tokens=False)
        assert plain_ids == reference.encode(text, truncation=False, add_special_tokens=False)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.vocab_size) == (2, 1, 401)
    assert tokenizer.special_token_ids == {0, 1, 2}


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}, {"add_bos_token": False}])
def test_vocab_and_merges_agree_with_transformers(
    tmp_path: Path, byte_level_backend: EncoderBackend, config: dict[str, Any]
) -> None:
    write_opt_folder(tmp_path, byte_level_backend, **config)
    tokenizer = load(tmp_path)
    reference = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in TEXTS:
        if "<s>" in text:  # nothing names it special in these files
            continue
        token_ids = tokenizer.encode(text)
        assert token_ids == reference.encode(text)
        assert tokenizer.decode(token_ids) == reference.decode(token_ids, skip_special_tokens=True)


def test_sentencepiece_decoder_of_llama(tmp_path: Path, byte_level_backend: EncoderBackend) -> None:
    backend = EncoderBackend.from_str(byte_level_backend.to_str())
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    backend.add_tokens(["\u2581word", "<0x41>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load(tmp_path).decode([400, 400]) == "word word"


def test_decoder_that_is_not_spelling_is_refused(tmp_path: Path, byte_level_backend: EncoderBackend) -> None:
    backend = EncoderBackend.from_str(byte_level_backend.to_str())
    for decoder, word in ((decoders.WordPiece(), "WordPiece"), (decoders.Strip(" ", 2, 0), "Strip")):
        backend.decoder = decoder
        backend.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(UnsupportedModelError, match=word):
            load(tmp_path)


def test_lone_surrogate_is_the_request_s_fault(byte_level: Tokenizer) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        byte_level.encode("a\ud800b")


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({}, CheckpointError, "no tokenizer.json"),
        ({"tokenizer.model": "x"}, UnsupportedModelError, "SentencePiece"),
        ({"tokenizer.json": "{"}, CheckpointError, "tokenizer.json"),
        ({"tokenizer.json": '{"model": 3}'}, CheckpointError, "tokenizer.json"),
        ({"vocab.json": '{"a": "b"}', "merges.txt": ""}, CheckpointError, "vocab.json"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "", "config.json": "{}"}, UnsupportedModelError, "None"),
        (
            {"vocab.json": '{"a": 0}', "merges.txt": "", "tokenizer_config.json": '{"tokenizer_class": "X"}'},
            UnsupportedModelError,
            "'X'",
        ),
        (
            {"vocab.json": '{"a": 0}', "merges.txt": "b c", "config.json": '{"model_type": "gpt2"}'},
            CheckpointError,
            "does not fit",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, str], error: type[Exception], words: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=words) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
