"""Requests of the experiments, and the same ones made new to a cache that cannot be emptied."""

from __future__ import annotations

from octavo.bench.experiments.experiment import Vocabulary
from octavo.bench.experiments.requests import make_load, turned

VOCABULARY = Vocabulary(
    token_ids=range(100, 1100), decode=lambda ids: " ".join(map(str, ids)), max_model_len=512
)


def _load(**more):
    return make_load(VOCABULARY, lambda source: (source.randint(5, 40), 7), num_requests=20, seed=3, **more)


def test_turned_prompts_keep_lengths_arrivals_and_tokens_and_begin_differently():
    before = _load(rate=2.0)
    for by in (1, 2, 17):
        after = turned(before, by, VOCABULARY)
        assert [one.due_ns for one in after] == [one.due_ns for one in before]
        for one, other in zip(before, after, strict=True):
            old, new = one.request.prompt_token_ids, other.request.prompt_token_ids
            assert sorted(old) == sorted(new) and old != new
            assert other.request.prompt_text == VOCABULARY.decode(new)
            assert other.request.num_output_tokens == one.request.num_output_tokens
    assert turned(before, 0, VOCABULARY) == before


def test_turned_prompts_still_share_what_they_shared():
    after = turned(_load(prefix=range(100, 130)), 4, VOCABULARY)
    assert {tuple(one.request.prompt_token_ids[:26]) for one in after} == {tuple(range(104, 130))}
