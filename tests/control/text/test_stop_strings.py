"""The incremental search against a search of the whole text."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.control.text.stop_strings import StopStringFinder

ALPHABET = "ab "


def find_naively(text: str, stop_strings: list[str], first_end: int = 1) -> tuple[int, str] | None:
    """(end, stop string) of the first match by end, then by length."""
    for end in range(first_end, len(text) + 1):
        found = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if found:
            return end, max(found, key=len)
    return None


def cut(text: str, cuts: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(borders)]


@settings(max_examples=600, deadline=None)
@given(
    text=st.text(ALPHABET, max_size=40),
    stop_strings=st.lists(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 100), max_size=12),
    include=st.booleans(),
)
def test_any_cut_gives_what_the_whole_text_gives(
    text: str, stop_strings: list[str], cuts: list[int], include: bool
) -> None:
    expected = find_naively(text, stop_strings)
    finder = StopStringFinder(stop_strings, include_in_output=include)
    shown, found = "", None
    for piece in cut(text, cuts):
        ready, found = finder.push(piece)
        shown += ready
        if found is not None:
            break
        # Nothing that a stop string might yet swallow has been given out.
        held_from = len(shown)
        if expected is not None:
            assert held_from <= expected[0] - len(expected[1])
    if expected is None:
        assert found is None
        assert shown + finder.flush() == text
    else:
        end, stop_string = expected
        assert found == stop_string
        assert shown == text[: end if include else end - len(stop_string)]
        assert finder.flush() == ""


@settings(max_examples=400, deadline=None)
@given(
    silent=st.text(ALPHABET, max_size=20),
    text=st.text(ALPHABET, max_size=20),
    stop_strings=st.lists(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 100), max_size=8),
)
def test_stops_that_end_in_silent_text_are_passed_over(
    silent: str, text: str, stop_strings: list[str], cuts: list[int]
) -> None:
    expected = find_naively(silent + text, stop_strings, first_end=len(silent) + 1)
    finder = StopStringFinder(stop_strings)
    shown, found = finder.push(silent, may_stop=False)
    assert found is None
    for piece in cut(text, cuts):
        ready, found = finder.push(piece)
        shown += ready
        if found is not None:
            break
    whole = silent + text
    if expected is None:
        assert (shown + finder.flush(), found) == (whole, None)
    else:
        # What was shown while stops did not count cannot be taken back.
        assert found == expected[1]
        assert shown == whole[: expected[0] - len(expected[1])]


def test_text_flows_at_once_when_nothing_can_match() -> None:
    finder = StopStringFinder(["\n\nUser:"])
    assert finder.push("Hello") == ("Hello", None)
    assert finder.push(" you\n") == (" you", None)
    assert finder.push("\nUse") == ("", None)
    assert finder.push("ful") == ("\n\nUseful", None)
