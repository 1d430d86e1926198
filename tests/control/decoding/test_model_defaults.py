"""The request's fields over the model's."""

from __future__ import annotations

from octavo.control.decoding.model_defaults import over_model_defaults
from octavo.sampling_params import SamplingParams

RECOMMENDED = {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}


def test_the_requests_values_go_first() -> None:
    assert over_model_defaults({"top_k": 5, "n": 2}, RECOMMENDED) == {**RECOMMENDED, "top_k": 5, "n": 2}


def test_beam_search_takes_only_what_does_not_sample() -> None:
    fields = over_model_defaults({"use_beam_search": True, "n": 2}, RECOMMENDED)
    assert fields == {"use_beam_search": True, "n": 2, "repetition_penalty": 1.1}
    SamplingParams(**fields)  # is not refused for what the client never sent
