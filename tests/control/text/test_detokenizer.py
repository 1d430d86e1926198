"""Streamed text against text decoded at once."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.control.text.detokenizer import Detokenizer
from octavo.control.text.tokenizer import Tokenizer

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SHARED_FIXTURE = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def stream(tokenizer: Tokenizer, token_ids: list[int], prompt: list[int], skips: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt, skip_special_tokens=skips)
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]


@SHARED_FIXTURE
@given(text=ANY_TEXT)
def test_text_comes_back_and_no_piece_breaks_a_character(byte_level: Tokenizer, text: str) -> None:
    pieces = stream(byte_level, byte_level.encode(text), [0], skips=False)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@SHARED_FIXTURE
@given(token_ids=st.lists(st.integers(0, 49151), max_size=40), skips=st.booleans())
def test_any_tokens_stream_as_they_decode(starter: Tokenizer, token_ids: list[int], skips: bool) -> None:
    whole = starter.decode(token_ids, skip_special_tokens=skips)
    assert "".join(stream(starter, token_ids, [5000], skips)) == whole


@SHARED_FIXTURE
@given(text=ANY_TEXT, split=st.integers(0, 60))
def test_sentencepiece_output_joins_its_prompt(sentencepiece: Tokenizer, text: str, split: int) -> None:
    token_ids = sentencepiece.encode(text)
    prompt, output = token_ids[: 1 + split], token_ids[1 + split :]
    before = b"".join(sentencepiece.token_bytes(i) for i in prompt if i > 2).removeprefix(b" ")
    after = "".join(stream(sentencepiece, output, prompt))
    assert after == sentencepiece.decode(token_ids).encode()[len(before) :].decode(errors="replace")


def test_unfinished_character_is_flushed_as_replacement(starter: Tokenizer) -> None:
    emoji = starter.encode("\U0001f9ff")
    assert len(emoji) > 1
    assert stream(starter, emoji[:-1], [5000]) == ["", *[""] * (len(emoji) - 2), "\ufffd"]


def test_spaces_between_special_tokens(starter: Tokenizer) -> None:
    start, end = starter.encode("<|im_start|><|im_end|>")
    hello = starter.encode("hello")
    for spaces, expected in ((False, "<|im_start|><|im_end|>hello"), (True, "<|im_start|> <|im_end|>hello")):
        detokenizer = Detokenizer(
            starter, [5000], skip_special_tokens=False, spaces_between_special_tokens=spaces
        )
        assert "".join(map(detokenizer.push, [start, end, *hello])) == expected


def test_a_token_costs_microseconds(starter: Tokenizer) -> None:
    token_ids = starter.encode("Once upon a time, in a village by the sea, there lived a painter. " * 300)
    stream(starter, token_ids, [0])
    started_seconds = time.perf_counter()
    stream(starter, token_ids, [0])
    assert (time.perf_counter() - started_seconds) / len(token_ids) < 50e-6
