"""Tokenizers from GGUF files, against transformers' own reading of the same files."""

from __future__ import annotations

import copy
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import CheckpointError, UnsupportedModelError
from tests.control.text.conftest import WriteGguf, write_sentencepiece

TEXTS = [
    "",
    " ",
    "\n",
    "Hello, world!",
    "  leading   and\t\ttabs   and trailing  \n\n\n",
    "1234567 12.5 $3,000 1st 2nd a1b2",
    "I'm you're they'll WE'VE don't 'quoted' it''s",
    "def f(x):\n    return x ** 2  # comment\n\n\nclass A:\n\tpass\r\n",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \u4e2d\u6587 \ud55c\uad6d\uc5b4",
    "emoji \U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea cafe\u0301 na\u00efve",
    "\u0646\u0635 \u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d",
    "\u200b\ufeff \u00bd \u00b2 \u2167 \u0663\u0664\u0665",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_",
    "a" * 300 + " " * 100 + "b",
]


def load(path: Path) -> Tokenizer:
    return Tokenizer.load(ModelSource("tiny", path, SourceKind.GGUF))


def load_reference(path: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


@pytest.fixture(scope="module")
def starter_encoder(starter_reference: Any) -> Any:
    """What the starter was trained with. transformers does not know its cut and takes GPT-2's; in
    SmolLM2's own tokenizer.json each digit is alone."""
    encoder = copy.deepcopy(starter_reference)
    encoder.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return encoder


@pytest.mark.parametrize("text", TEXTS)
def test_starter_agrees_with_transformers(starter: Tokenizer, starter_encoder: Any, text: str) -> None:
    token_ids = starter.encode(text)
    assert token_ids == starter_encoder.encode(text)
    assert starter.decode(token_ids, skip_special_tokens=False) == text
    assert starter.decode(token_ids) == starter_encoder.decode(token_ids, skip_special_tokens=True)


def test_starter_agrees_with_transformers_on_random_texts(starter: Tokenizer, starter_encoder: Any) -> None:
    rng = random.Random(0)
    letters = "abc XYZ 0123\n\t's\u00e9\U0001f600\u4e2d\u0663.,!-_<|>(){}"
    texts = ["".join(rng.choices(letters, k=rng.randrange(80))) for _ in range(1000)]
    assert [starter.encode(text) for text in texts] == starter_encoder(texts)["input_ids"]


def test_a_long_text_keeps_no_other_thread_waiting(starter: Tokenizer) -> None:
    text = "hello world, abc def " * 100_000
    with ThreadPoolExecutor(1) as pool:
        encoding = pool.submit(starter.encode, text)
        longest_wait_seconds, num_waits = 0.0, 0
        started_seconds = time.perf_counter()
        while not encoding.done():
            before_seconds = time.perf_counter()
            time.sleep(0.001)
            longest_wait_seconds = max(longest_wait_seconds, time.perf_counter() - before_seconds)
            num_waits += 1
        total_seconds = time.perf_counter() - started_seconds
    assert num_waits > 5
    assert longest_wait_seconds < 0.5 * total_seconds
    assert starter.decode(encoding.result()) == text


def test_threads_may_encode_at_once(starter: Tokenizer) -> None:
    texts = [text * 20 for text in TEXTS] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(starter.encode, texts)) == [starter.encode(text) for text in texts]


def test_starter_facts(starter: Tokenizer) -> None:
    assert (starter.bos_token_id, starter.eos_token_id, starter.vocab_size) == (1, 2, 49152)
    assert starter.special_token_ids == frozenset(range(17))
    assert starter.token_text(2) == "<|im_end|>"
    assert starter.token_bytes(starter.encode(" the")[0]) == b" the"
    assert starter.token_bytes(49152) == starter.token_bytes(10**9) == b""


def test_starter_loads_fast(starter_source: ModelSource) -> None:
    def measure() -> float:
        started_seconds = time.perf_counter()
        Tokenizer.load(starter_source)
        return time.perf_counter() - started_seconds

    # The best of a few, because other processes may be busy.
    assert min(measure() for _ in range(3)) < 1.0


@pytest.mark.parametrize("text", [*(text for text in TEXTS if not text.startswith(" ")), "<s>", "x</s>"])
def test_sentencepiece_agrees_with_transformers(
    write_gguf: WriteGguf, sentencepiece_tokens: list[str], text: str
) -> None:
    path = write_sentencepiece(write_gguf, sentencepiece_tokens, add_bos_token=True)
    tokenizer, reference = load(path), load_reference(path)
    token_ids = tokenizer.encode(text)
    assert token_ids == reference.encode(text)
    assert tokenizer.decode(token_ids) == reference.decode(token_ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_text_comes_back(sentencepiece: Tokenizer, text: str) -> None:
    token_ids = sentencepiece.encode(text)
    assert token_ids[0] == sentencepiece.bos_token_id == 1
    assert sentencepiece.decode(token_ids) == text
    assert sentencepiece.encode(text, add_special_tokens=False) == token_ids[1:]


def test_sentencepiece_without_space_prefix(write_gguf: WriteGguf, sentencepiece_tokens: list[str]) -> None:
    path = write_sentencepiece(write_gguf, sentencepiece_tokens, add_space_prefix=False, add_eos_token=True)
    tokenizer = load(path)
    token_ids = tokenizer.encode(" the dog")
    assert tokenizer.decode(token_ids) == " the dog"
    assert (token_ids[0], token_ids[-1]) == (1, 2)


BYTES = [*"abc123", "\u0120", "ab", "\u0120a", "12"]
MERGES = ["a b", "\u0120 a", "1 2"]


def test_user_defined_tokens_are_whole_but_not_special(write_gguf: WriteGguf) -> None:
    tokens = [*BYTES, "<think>", "<end>"]
    types = [1] * len(BYTES) + [4, 3]
    tokenizer = load(write_gguf("gpt2", tokens, types=types, merges=MERGES, pre="gpt-2", eos_token_id=11))
    token_ids = tokenizer.encode("ab<think>c<end>")
    assert [tokenizer.token_text(i) for i in token_ids] == ["ab", "<think>", "c", "<end>"]
    assert tokenizer.decode(token_ids) == "ab<think>c"
    assert tokenizer.special_token_ids == {11}


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["ab", "12", "3"]),
        ("smollm", ["ab", "1", "2", "3"]),
        ("llama-bpe", ["ab", "12", "3"]),
        ("qwen2", ["ab", "1", "2", "3"]),
        ("tekken", ["ab", "1", "2", "3"]),
        ("default", ["ab", "12", "3"]),
    ],
)
def test_cut_follows_the_file(write_gguf: WriteGguf, pre: str, pieces: list[str]) -> None:
    path = write_gguf("gpt2", BYTES, merges=MERGES, pre=pre, add_bos_token=False)
    tokenizer = load(path)
    assert [tokenizer.token_text(i) for i in tokenizer.encode("ab123")] == pieces


def test_llama3_prompts_begin_with_bos_unless_told_otherwise(write_gguf: WriteGguf) -> None:
    tokens, types = [*BYTES, "<bos>"], [1] * len(BYTES) + [3]
    settings: dict[str, Any] = {"merges": MERGES, "pre": "llama-bpe", "bos_token_id": 10}
    assert load(write_gguf("gpt2", tokens, types=types, **settings)).encode("ab") == [10, 7]
    assert load(write_gguf("gpt2", tokens, types=types, add_bos_token=False, **settings)).encode("ab") == [7]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"kind": "t5"}, UnsupportedModelError, "'t5'"),
        ({"kind": "gpt2", "pre": "martian", "merges": MERGES}, UnsupportedModelError, "'martian'"),
        ({"kind": "gpt2", "pre": "gpt-2"}, CheckpointError, "merges is missing"),
        ({"kind": "gpt2", "pre": "gpt-2", "merges": ["a zebra"]}, CheckpointError, "do not fit"),
        ({"kind": "gpt2", "pre": "gpt-2", "merges": ["ab"]}, CheckpointError, "do not fit"),
        ({"kind": "gpt2", "merges": MERGES, "types": [1]}, CheckpointError, "token_type"),
        ({"kind": "gpt2", "merges": MERGES, "eos_token_id": 10}, CheckpointError, "eos_token_id"),
        ({"kind": "gpt2", "merges": MERGES, "add_bos_token": True}, CheckpointError, "bos_token_id"),
        ({"kind": "llama"}, CheckpointError, "scores is missing"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    write_gguf: WriteGguf, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    path = write_gguf(settings.pop("kind"), BYTES, **settings)
    with pytest.raises(error, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
