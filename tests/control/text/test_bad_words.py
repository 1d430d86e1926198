from __future__ import annotations

from octavo.control.text.bad_words import bad_words_token_ids
from octavo.control.text.tokenizer import Tokenizer


def test_words_are_found_at_the_start_and_within(starter: Tokenizer) -> None:
    assert bad_words_token_ids(starter, ["dog"]) == (
        tuple(starter.encode("dog")),
        tuple(starter.encode(" dog")),
    )
    # A space of the client's own makes no difference, nor does a word said twice.
    assert bad_words_token_ids(starter, [" dog", "dog"]) == bad_words_token_ids(starter, ["dog"])


def test_no_sequence_is_ever_empty(starter: Tokenizer) -> None:
    assert all(bad_words_token_ids(starter, [" ", "\n", "\U0001f9ff", "xyzzyq"]))
