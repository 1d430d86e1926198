"""Tokenizers for the tests: the starter model's, and small ones trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer as EncoderBackend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from octavo.checkpoint.source import ModelSource, SourceKind, resolve_model
from octavo.control.text.tokenizer import Tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "def add(left: int, right: int) -> int:\n    return left + right\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "I'm sure they'll say it's 1234 or 5678; we've seen 12.50 before.",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3068 \u4e2d\u6587 text",
] * 3

WriteGguf = Callable[..., Path]


@pytest.fixture(scope="session")
def starter_source() -> ModelSource:
    return resolve_model(None)


@pytest.fixture(scope="session")
def starter(starter_source: ModelSource) -> Tokenizer:
    return Tokenizer.load(starter_source)


@pytest.fixture(scope="session")
def starter_reference(starter_source: ModelSource) -> Any:
    """The starter's tokenizer in transformers, which takes seconds to read it."""
    path = starter_source.path
    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


@pytest.fixture(scope="session")
def byte_level_backend() -> EncoderBackend:
    """A byte-level BPE of 400 tokens, of which ids 0 to 2 are special."""
    backend = EncoderBackend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


@pytest.fixture(scope="session")
def byte_level(byte_level_backend: EncoderBackend, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("byte_level")
    byte_level_backend.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(ModelSource("tiny", folder, SourceKind.FOLDER))


@pytest.fixture(scope="session")
def sentencepiece_tokens() -> list[str]:
    """A SentencePiece-like vocabulary: 3 special tokens, 256 byte tokens, then pieces, best first."""
    backend = EncoderBackend(models.BPE())
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    letters = {letter for text in CORPUS for letter in text.replace(" ", "\u2581")}
    pieces = sorted(backend.get_vocab(), key=lambda token: backend.get_vocab()[token])
    merged = [piece for piece in pieces if len(piece) > 1]
    return ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *merged, *sorted(letters)]


@pytest.fixture
def write_gguf(tmp_path: Path) -> WriteGguf:
    """Writes a GGUF file that holds nothing but a tokenizer."""

    def write(
        kind: str,
        tokens: list[str],
        *,
        types: list[int] | None = None,
        scores: list[float] | None = None,
        merges: list[str] | None = None,
        **settings: str | int | bool,
    ) -> Path:
        path = tmp_path / "tokenizer.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model(kind)
        writer.add_token_list(tokens)
        if types is not None:
            writer.add_token_types(types)
        if scores is not None:
            writer.add_token_scores(scores)
        if merges is not None:
            writer.add_token_merges(merges)
        for key, value in settings.items():
            add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}[type(value)]
            add(f"tokenizer.{'' if key == 'chat_template' else 'ggml.'}{key}", value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def sentencepiece(write_gguf: WriteGguf, sentencepiece_tokens: list[str]) -> Tokenizer:
    return Tokenizer.load(
        ModelSource("tiny", write_sentencepiece(write_gguf, sentencepiece_tokens), SourceKind.GGUF)
    )


def write_sentencepiece(write_gguf: WriteGguf, tokens: list[str], **settings: str | int | bool) -> Path:
    types = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return write_gguf("llama", tokens, types=types, scores=scores, **ids, **settings)
