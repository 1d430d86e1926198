"""Stop strings, stop tokens and min_tokens, on the starter model's own tokens."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.control.text.output_text import OutputText, TextDelta
from octavo.control.text.tokenizer import Tokenizer
from octavo.sampling_params import SamplingParams

PROMPT = [5000]
TEXT = "One two three. Four five six. Seven eight nine."
EOS = 2


def run(tokenizer: Tokenizer, params: SamplingParams, token_ids: list[int]) -> tuple[list[str], OutputText]:
    output = OutputText(tokenizer, params, PROMPT)
    last = len(token_ids) - 1
    deltas = [output.push([token_id], index == last) for index, token_id in enumerate(token_ids)]
    return [delta.text for delta in deltas], output


def test_text_streams_whole_without_stops(starter: Tokenizer) -> None:
    pieces, output = run(starter, SamplingParams(), starter.encode(TEXT))
    assert "".join(pieces) == output.text == TEXT
    assert output.num_tokens == len(starter.encode(TEXT))


def test_stop_string_across_tokens_never_leaks(starter: Tokenizer) -> None:
    token_ids = starter.encode(TEXT)
    pieces, output = run(starter, SamplingParams(stop=["ur five s"]), token_ids)
    assert "".join(pieces) == output.text == "One two three. Fo"
    assert output.stop_string == "ur five s"
    # The token that completed the stop string is kept; those after it are not.
    assert "ur five s" in starter.decode(token_ids[: output.num_tokens])
    assert "ur five s" not in starter.decode(token_ids[: output.num_tokens - 1])


def test_one_push_gives_what_many_give(starter: Tokenizer) -> None:
    token_ids = starter.encode(TEXT)
    params = SamplingParams(stop=["five", "six."], include_stop_str_in_output=True)
    _, by_token = run(starter, params, token_ids)
    at_once = OutputText(starter, params, PROMPT)
    assert at_once.push(token_ids, True) == TextDelta("One two three. Four five", "five")
    assert (at_once.num_tokens, at_once.text) == (by_token.num_tokens, by_token.text)
    assert at_once.push(token_ids, True) == TextDelta("")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    token_ids=st.lists(st.integers(17, 400), min_size=1, max_size=30),
    start=st.integers(0, 60),
    length=st.integers(1, 8),
    push_size=st.integers(1, 7),
)
def test_any_stop_string_cuts_the_text_where_it_first_stands(
    starter: Tokenizer, token_ids: list[int], start: int, length: int, push_size: int
) -> None:
    whole = starter.decode(token_ids)
    stop = whole[start : start + length] or "not there"
    output = OutputText(starter, SamplingParams(stop=stop), PROMPT)
    shown = ""
    for first in range(0, len(token_ids), push_size):
        piece = token_ids[first : first + push_size]
        shown += output.push(piece, first + push_size >= len(token_ids)).text
    assert shown == output.text == whole.split(stop)[0]
    assert output.stop_string == (stop if stop in whole else None)


def test_held_back_text_comes_with_the_end(starter: Tokenizer) -> None:
    pieces, output = run(starter, SamplingParams(stop=["nine.\n"]), starter.encode(TEXT))
    assert output.stop_string is None
    assert "".join(pieces) == TEXT
    assert pieces[-1].endswith("nine.")


def test_stops_wait_for_min_tokens(starter: Tokenizer) -> None:
    token_ids = starter.encode(TEXT)
    first = starter.encode("One two three.")
    for min_tokens, expected in ((0, "One two three"), (len(first), "One two three")):
        _, output = run(starter, SamplingParams(stop=["."], min_tokens=min_tokens, max_tokens=99), token_ids)
        assert output.text == expected
    params = SamplingParams(stop=["."], min_tokens=len(first) + 1, max_tokens=99)
    assert run(starter, params, token_ids)[1].text == "One two three. Four five six"


def test_stop_token_shows_only_on_request(starter: Tokenizer) -> None:
    token_ids = starter.encode("yes!")
    for include, skip, expected in (
        (False, True, "yes"),
        (True, True, "yes!"),
        (True, False, "yes!"),
        (False, False, "yes"),
    ):
        params = SamplingParams(include_stop_str_in_output=include, skip_special_tokens=skip)
        output = OutputText(starter, params, PROMPT)
        assert output.push(token_ids, True, ended_by_stop_token=True).text == expected
        assert output.num_tokens == len(token_ids)
    shown = OutputText(starter, SamplingParams(skip_special_tokens=False), PROMPT)
    assert shown.push([EOS], True, ended_by_stop_token=True).text == ""


def test_no_text_without_detokenize(starter: Tokenizer) -> None:
    pieces, output = run(starter, SamplingParams(detokenize=False), starter.encode(TEXT))
    assert (output.text, set(pieces)) == ("", {""})
    assert output.num_tokens == len(starter.encode(TEXT))
