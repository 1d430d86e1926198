"""The rules of beam search: by hand, against a plain loop of the same rules, and against all there is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.control.decoding.beam_search import BeamSearch, BeamStep, Hypothesis
from octavo.request import FinishReason, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.step import Candidate

EOS = 0


def search(
    *, max_tokens: int = 10, end=(EOS,), eos=(EOS,), find_stop=None, best_of: int = 2, n: int = 1, **params
) -> BeamSearch:
    return BeamSearch(
        SamplingParams(use_beam_search=True, best_of=best_of, n=n, **params),
        max_tokens=max_tokens,
        end_token_ids=frozenset(end),
        eos_token_ids=frozenset(eos),
        find_stop=find_stop,
    )


def row(**scores: float) -> list[Candidate]:
    """`t5=-0.1` is token 5; best first, lowest id first among equals."""
    candidates = [Candidate(int(name[1:]), score) for name, score in scores.items()]
    return sorted(candidates, key=lambda one: (-one.score, one.token_id))


def tokens(hypotheses: Sequence[Hypothesis]) -> list[tuple[int, ...]]:
    return [one.token_ids for one in hypotheses]


# -- by hand


def test_the_best_continuations_of_all_beams_live_on_best_first():
    beams = search(best_of=2)
    assert beams.advance([row(t5=-0.5, t6=-1.0, t7=-3.0)]) == [BeamStep(0, 5), BeamStep(0, 6)]
    steps = beams.advance([row(t1=-2.0, t2=-2.5, t3=-9.0), row(t8=-0.1, t9=-1.9, t4=-9.0)])
    assert steps == [BeamStep(1, 8), BeamStep(0, 1)]
    assert not beams.is_finished
    assert beams.best() == []


def test_ties_go_to_the_better_parent_then_to_the_lower_token():
    beams = search(best_of=2)
    assert beams.advance([row(t7=-1.0, t5=-1.0, t6=-1.0)]) == [BeamStep(0, 5), BeamStep(0, 6)]
    assert beams.advance([row(t9=-1.0, t8=-1.0), row(t3=-1.0, t2=-1.0)]) == [BeamStep(0, 8), BeamStep(0, 9)]


def test_an_end_token_finishes_a_beam_only_among_the_best_width():
    beams = search(best_of=2)
    beams.advance([row(t5=-0.5, t6=-1.0, t7=-3.0)])
    # The end of the second beam ranks third: it is dropped, and the beam goes on without it.
    steps = beams.advance([row(t1=-0.1, t2=-0.2, t3=-9.0), row(t0=-1.0, t4=-2.0, t9=-9.0)])
    assert steps == [BeamStep(0, 1), BeamStep(0, 2)]
    assert beams.best() == []
    steps = beams.advance([row(t0=-0.1, t2=-3.0, t3=-9.0), row(t4=-2.0, t2=-9.0, t3=-9.0)])
    assert steps == [BeamStep(1, 4), BeamStep(0, 2)]
    (ended,) = beams.best()
    assert ended.token_ids == (5, 1, 0)
    assert ended.cumulative_score == pytest.approx(-0.7)
    assert ended.score == pytest.approx(-0.7 / 3)
    assert (ended.finish_reason, ended.stop_reason) == (FinishReason.STOP, None)


def test_at_the_limit_the_best_beams_are_cut():
    beams = search(best_of=2, n=2, max_tokens=2)
    beams.advance([row(t5=-0.5, t6=-1.0, t7=-3.0)])
    assert beams.advance([row(t1=-0.1, t0=-0.2, t3=-9.0), row(t4=-2.0, t2=-9.0, t3=-9.0)]) == []
    assert beams.is_finished
    assert tokens(beams.best()) == [(5, 1), (5, 0)]
    assert [one.finish_reason for one in beams.best()] == [FinishReason.LENGTH, FinishReason.STOP]
    with pytest.raises(RuntimeError, match="finished"):
        beams.advance([])


def ended_twice(live_score: float, **params) -> BeamSearch:
    """One hypothesis scored -1 at the first token, one summing to -1.2 at the second; a beam lives on."""
    beams = search(best_of=2, n=2, **params)
    beams.advance([row(t5=-0.1, t0=-1.0, t6=-1.5)])
    beams.advance([row(t0=-1.1, t1=live_score + 0.1, t2=-50.0), row(t1=-50.0, t2=-51.0, t3=-52.0)])
    return beams


@pytest.mark.parametrize(
    ("early_stopping", "length_penalty", "live_score", "is_finished"),
    [
        (True, 1.0, -1.21, True),
        (False, 1.0, -1.21, False),  # -1.21 / 2 is better than -1
        (False, 1.0, -2.01, True),  # -2.01 / 2 is worse than -1
        (False, 1.0, -2.0, True),  # as good is not better
        ("never", 1.0, -2.01, False),  # -2.01 / 10 is better
        (False, 0.0, -1.21, True),  # without a penalty nothing gets better
        ("never", 0.0, -1.21, True),
        ("never", -1.0, -1.21, True),  # -1.21 * 2 is worse than -1.2 * 2
        ("never", -1.0, -1.15, False),  # -1.15 * 2 is better; at no length more is to be had
        (False, 2.0, -3.99, False),  # -3.99 / 4 is better than -1
        (False, 2.0, -4.01, True),
        ("never", 2.0, -9.9, False),
    ],
)
def test_when_to_stop(early_stopping, length_penalty, live_score, is_finished):
    beams = ended_twice(live_score, early_stopping=early_stopping, length_penalty=length_penalty)
    assert len(beams.best()) == 2
    assert beams.is_finished is is_finished


def test_better_hypotheses_displace_worse_ones():
    beams = ended_twice(-1.21, early_stopping="never")
    assert [one.score for one in beams.best()] == pytest.approx([-0.6, -1.0])
    beams.advance([row(t0=-0.1, t1=-1.0, t2=-9.0), row(t1=-9.0, t2=-9.5, t3=-9.6)])
    assert [one.score for one in beams.best()] == pytest.approx([-1.31 / 3, -0.6])
    assert tokens(beams.best()) == [(5, 1, 0), (5, 0)]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_width_of_one_is_greedy_search(early_stopping):
    beams = search(best_of=1, early_stopping=early_stopping)
    assert beams.advance([row(t5=-0.5, t0=-0.6)]) == [BeamStep(0, 5)]
    assert beams.advance([row(t0=-0.6, t5=-0.7)]) == []
    assert tokens(beams.best()) == [(5, 0)]


def test_stop_tokens_are_named_and_eos_is_not():
    beams = search(best_of=3, n=3, max_tokens=9, end=(EOS, 4), early_stopping=True)
    assert beams.num_candidates == 5  # three, behind two that may end
    assert beams.advance([row(t4=-0.1, t0=-0.2, t5=-0.5)]) == [BeamStep(0, 5)]
    assert beams.advance([row(t4=-0.1, t6=-0.2, t7=-3.0)]) == []
    assert [(one.token_ids, one.stop_reason) for one in beams.best()] == [
        ((4,), 4),
        ((0,), None),
        ((5, 4), 4),
    ]


def test_an_ignored_eos_that_is_also_a_stop_token_is_named():
    beams = search(best_of=2, end=(EOS,), ignore_eos=True, stop_token_ids=[EOS])
    beams.advance([row(t0=-0.1, t5=-0.2, t6=-0.3)])
    assert beams.best()[0].stop_reason == EOS


def test_stop_strings_end_beams_with_their_whole_length():
    asked = []

    def find_stop(token_ids: Sequence[int]) -> bool:
        asked.append(tuple(token_ids))
        return tuple(token_ids[-2:]) == (5, 8)

    beams = search(best_of=2, stop=["x"], find_stop=find_stop)
    assert beams.num_candidates == 4
    beams.advance([row(t5=-0.5, t6=-1.0, t7=-3.0, t8=-4.0)])
    steps = beams.advance([row(t8=-0.1, t9=-1.0, t1=-7.0, t2=-8.0), row(t8=-0.6, t1=-7.0, t2=-8.0, t3=-9.0)])
    assert steps == [BeamStep(0, 9), BeamStep(1, 8)]
    (ended,) = beams.best()
    assert (ended.token_ids, ended.score) == ((5, 8), pytest.approx(-0.3))
    assert (ended.finish_reason, ended.stop_reason) == (FinishReason.STOP, None)
    assert asked == [(5,), (6,), (5, 8), (5, 9), (6, 8)]  # no more of them than the rules look at


def test_at_the_limit_stop_strings_are_looked_for_only_in_what_is_kept():
    asked = []
    beams = search(
        best_of=2, n=2, max_tokens=1, stop=["x"], find_stop=lambda ids: asked.append(ids[0]) or True
    )
    assert beams.advance([row(t5=-0.1, t6=-0.2, t7=-0.3, t8=-0.4)]) == []
    assert asked == [5, 6]
    assert {one.finish_reason for one in beams.best()} == {FinishReason.STOP}


def test_stop_strings_may_leave_fewer_beams_than_the_width():
    beams = search(
        best_of=2, stop=["x"], find_stop=lambda token_ids: token_ids[-1] in (5, 6, 7), early_stopping="never"
    )
    # As in transformers, 2 * width continuations are ranked: of these, only one does not end here.
    assert beams.advance([row(t5=-0.1, t6=-0.2, t7=-0.3, t8=-0.4, t9=-0.5)]) == [BeamStep(0, 8)]
    assert beams.advance([row(t5=-0.1, t6=-0.2, t7=-0.3)]) == []
    assert beams.is_finished  # nothing is left to go on
    assert tokens(beams.best()) == [(5,)]


def test_before_min_tokens_no_stop_string_is_looked_for():
    asked = []

    def find_stop(token_ids: Sequence[int]) -> bool:
        asked.append(len(token_ids))
        return True

    beams = search(best_of=2, min_tokens=2, max_tokens=4, stop=["x"], find_stop=find_stop)
    assert len(beams.advance([row(t5=-0.1, t6=-0.2)])) == 2
    assert beams.advance([row(t5=-0.1, t6=-0.2), row(t5=-0.1)]) == []
    assert set(asked) == {2}


def test_logprobs_are_those_of_each_hypothesis():
    def entry(token_id: int, logprob: float) -> TokenLogprobs:
        return TokenLogprobs(token_id, logprob, 1)

    beams = search(best_of=2, n=2, max_tokens=2, logprobs=0)
    beams.advance([[Candidate(5, -0.5, entry(5, -0.4)), Candidate(6, -1.0, entry(6, -0.9))]])
    beams.advance([[Candidate(7, -2.0, entry(7, -1.9))], [Candidate(8, -0.1, entry(8, -0.05))]])
    assert [one.logprobs for one in beams.best()] == [
        (entry(6, -0.9), entry(8, -0.05)),
        (entry(5, -0.4), entry(7, -1.9)),
    ]
    beams = search(logprobs=0)
    with pytest.raises(ValueError, match="candidate 5 came without log-probabilities"):
        beams.advance([row(t5=-0.5)])


def test_fewer_candidates_than_asked_for_make_fewer_beams():
    beams = search(best_of=4, n=3, max_tokens=2)
    assert beams.advance([row(t5=-0.5)]) == [BeamStep(0, 5)]
    assert beams.advance([row(t5=-0.5, t6=-0.6)]) == []
    assert tokens(beams.best()) == [(5, 5), (5, 6)]  # all that there are, though three were asked for
    dead = search(best_of=2)
    assert dead.advance([[]]) == []
    assert dead.is_finished
    assert dead.best() == []


def test_a_wrong_use_is_refused():
    with pytest.raises(ValueError, match="find_stop"):
        search(stop=["x"])
    with pytest.raises(ValueError, match="max_tokens must be at least 1, not 0"):
        search(max_tokens=0)
    with pytest.raises(ValueError, match="1 live beams, but candidates of 2"):
        search().advance([row(t5=-0.5), row(t6=-0.5)])


# -- by brute force

VOCAB_SIZE = 5


def score_of(seed: int, token_ids: tuple[int, ...]) -> float:
    """A made-up log-probability of the last token after the others, the same whenever it is asked for."""
    value = hash((seed, 0, *token_ids))  # integers hash alike in every process
    return -(((value * 2654435761) >> 7) % 4096) / 512


def run(beams: BeamSearch, seed: int) -> list[Hypothesis]:
    """Drive a search over the made-up model, and check what must hold after each step."""
    live: list[tuple[int, ...]] = [()]
    while not beams.is_finished:
        ranked = [
            sorted(
                (Candidate(token, score_of(seed, (*beam, token))) for token in range(VOCAB_SIZE)),
                key=lambda one: (-one.score, one.token_id),
            )[: beams.num_candidates]
            for beam in live
        ]
        steps = beams.advance(ranked)
        live = [(*live[step.parent], step.token_id) for step in steps]
        assert len(set(live)) == len(live) <= beams.width
        totals = [sum(score_of(seed, beam[: i + 1]) for i in range(len(beam))) for beam in live]
        assert totals == sorted(totals, reverse=True)
        scores = [one.score for one in beams.best()]
        assert scores == sorted(scores, reverse=True)
    assert live == []
    return beams.best()


def by_the_rules(params: SamplingParams, seed: int, max_tokens: int, end: set[int], ending: set[tuple]):
    """Beam search in transformers' terms: dense scores of every token, places for `width` results.

    Written from its rules, all in one loop, with its placeholders of -1e9 for what does not exist.
    """
    width, penalty, blank = params.num_sequences, params.length_penalty, -1e9
    num_ranked = max(2, 1 + len(end)) * width
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    kept: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, max_tokens + 1):
        pool = [
            ((*beam, token), total + score_of(seed, (*beam, token)))
            for beam, total in live
            for token in range(VOCAB_SIZE)
        ]
        pool = sorted(pool, key=lambda one: -one[1])[:num_ranked]  # stable: beam, then token
        is_over = [length == max_tokens or tokens[-1] in end or (tokens[-2:] in ending) for tokens, _ in pool]
        for (tokens_, total), over in list(zip(pool, is_over, strict=True))[:width]:
            if over:
                kept.append((total / length**penalty, tokens_))
        kept = sorted(kept, key=lambda one: -one[0])[:width]
        live = [one for one, over in zip(pool, is_over, strict=True) if not over][:width]
        if all(is_over):
            break
        is_full = len(kept) == width
        if is_full and (params.early_stopping is True or width == 1):
            break
        best_length = max_tokens if params.early_stopping == "never" and penalty > 0 else length
        if live[0][1] / best_length**penalty <= (kept[-1][0] if is_full else blank):
            break
    return kept[: params.n]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    width=st.integers(1, 6),
    max_tokens=st.integers(1, 9),
    end=st.sets(st.integers(0, VOCAB_SIZE - 1), max_size=2),
    ending=st.sets(st.tuples(*[st.integers(0, VOCAB_SIZE - 1)] * 2), max_size=6),
    early_stopping=st.sampled_from([True, False, "never"]),
    length_penalty=st.sampled_from([-1.5, 0.0, 0.6, 1.0, 2.0]),
    data=st.data(),
)
def test_equals_the_rules(seed, width, max_tokens, end, ending, early_stopping, length_penalty, data):
    params = SamplingParams(
        use_beam_search=True,
        best_of=width,
        n=data.draw(st.integers(1, width)),
        early_stopping=early_stopping,
        length_penalty=length_penalty,
        stop=["x"] if ending else [],
        max_tokens=max_tokens,
    )
    beams = BeamSearch(
        params,
        max_tokens=max_tokens,
        end_token_ids=frozenset(end),
        eos_token_ids=frozenset(end),
        find_stop=lambda token_ids: tuple(token_ids[-2:]) in ending,
    )
    found = run(beams, seed)
    expected = by_the_rules(params, seed, max_tokens, end, ending)
    assert [(one.score, one.token_ids) for one in found] == expected
    for one in found:
        assert (one.finish_reason is FinishReason.LENGTH) == (
            len(one.token_ids) == max_tokens
            and one.token_ids[-1] not in end
            and one.token_ids[-2:] not in ending
        )


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**9), max_tokens=st.integers(1, 3), length_penalty=st.sampled_from([0.0, -1.0, 1.0])
)
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_continuations(seed, max_tokens, length_penalty):
    """Fewer continuations than beams: nothing is dropped, and nothing stops the search early."""
    width = 128
    beams = search(
        best_of=width, max_tokens=max_tokens, length_penalty=length_penalty, early_stopping="never"
    )

    def continuations(beam: tuple[int, ...]):
        if beam and (beam[-1] == EOS or len(beam) == max_tokens):
            yield beam
        else:
            for token in range(VOCAB_SIZE):
                yield from continuations((*beam, token))

    def score(beam: tuple[int, ...]) -> float:
        total = math.fsum(score_of(seed, beam[: i + 1]) for i in range(len(beam)))
        return total / len(beam) ** length_penalty

    every = list(continuations(()))
    assert len(every) < width
    (best,) = run(beams, seed)
    assert best.score == pytest.approx(max(map(score, every)))
