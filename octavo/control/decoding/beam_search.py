"""One request's beam search: which beams live, which have ended, and when to stop.

The rules are those of transformers' `generate(num_beams=width, do_sample=False)` (generation/utils.py,
`_beam_search`); docs/decoding.md writes them out. Keeps tokens and scores; never touches blocks or queues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octavo.request import FinishReason, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.step import Candidate


@dataclass(frozen=True, slots=True)
class BeamStep:
    """One live beam of the next step: live beam `parent` of this one, and a token appended to it."""

    parent: int
    token_id: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A continuation that has ended, or was cut at the limit.

    Attributes:
        token_ids: its output tokens, with the one that ended it.
        score: `cumulative_score / len(token_ids) ** length_penalty`: what hypotheses are compared by.
        cumulative_score: sum of its candidates' scores.
        finish_reason: STOP or LENGTH.
        stop_reason: the stop token that ended it; None for EOS, stop strings and lengths.
        logprobs: one entry per token, where the client asked for them.
    """

    token_ids: tuple[int, ...]
    score: float
    cumulative_score: float
    finish_reason: FinishReason
    stop_reason: int | None
    logprobs: tuple[TokenLogprobs, ...] | None


@dataclass(frozen=True, slots=True)
class _Beam:
    """A continuation that has not ended; `score` is the sum of its candidates'."""

    token_ids: tuple[int, ...]
    score: float
    logprobs: tuple[TokenLogprobs, ...] | None


class BeamSearch:
    """The search of one request. Begins with one live beam, the prompt.

    Attributes:
        width: how many beams live, and how many hypotheses are kept.
        num_candidates: how many candidates to ask for of each live beam. So many always hold what the
            rules look at, though the rules rank more than that of all beams together.
        is_finished: whether the hypotheses are final.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        max_tokens: int,
        end_token_ids: frozenset[int],
        eos_token_ids: frozenset[int],
        find_stop: Callable[[Sequence[int]], bool] | None = None,
    ) -> None:
        """Args:
        max_tokens: the request's limit on output tokens, at least 1.
        end_token_ids: tokens that end a beam: EOS unless it is ignored, and `params.stop_token_ids`.
        eos_token_ids: which of them are the model's EOS.
        find_stop: whether the text of these output tokens has a stop string in it that may end them;
            only called where `params.stop` is set, then needed.

        Raises:
            ValueError: there are stop strings but no `find_stop`, or no token may be generated.
        """
        if params.stop and find_stop is None:
            raise ValueError("stop strings need find_stop")
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        self.width = params.num_sequences
        self._params = params
        self._max_tokens = max_tokens
        self._end_token_ids = end_token_ids
        self._eos_token_ids = frozenset() if params.ignore_eos else eos_token_ids
        self._find_stop = find_stop if params.stop else None
        # So many that beams which end never crowd out those that go on.
        self._num_ranked = max(2, 1 + len(end_token_ids)) * self.width
        self.num_candidates = self._num_ranked
        if self._find_stop is None:
            # No beam gives more than `width` of those that go on, behind one for each end token.
            self.num_candidates = min(self._num_ranked, self.width + len(end_token_ids))
        self.is_finished = False
        self._num_tokens = 0
        self._live = [_Beam((), 0.0, None if params.logprobs is None else ())]
        self._hypotheses: list[Hypothesis] = []  # at most `width`, best first

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> list[BeamStep]:
        """Take each live beam's candidates, in the order in which the last call gave the beams.

        Args:
            candidates: of each live beam its `num_candidates` likeliest, best first; fewer, or none,
                where no more can come.

        Returns:
            The next live beams, best first: `width` of them, or fewer where fewer can go on; none when
            the search has finished. Ties go to the better parent, then to the lower token id.

        Raises:
            ValueError: not one list a live beam, or log-probabilities are missing.
            RuntimeError: the search has finished already.
        """
        if self.is_finished:
            raise RuntimeError("this beam search has finished")
        if len(candidates) != len(self._live):
            raise ValueError(f"there are {len(self._live)} live beams, but candidates of {len(candidates)}")
        self._num_tokens += 1
        is_last = self._num_tokens == self._max_tokens
        steps: list[BeamStep] = []
        beams: list[_Beam] = []
        ended: list[Hypothesis] = []
        for rank, (parent, candidate) in enumerate(self._rank(candidates)):
            if rank >= self.width and (is_last or len(beams) == self.width):
                break
            beam = self._extend(self._live[parent], candidate)
            end = self._end_of(beam, is_last)
            if end is not None:
                if rank < self.width:
                    ended.append(self._conclude(beam, *end))
            elif len(beams) < self.width:
                steps.append(BeamStep(parent, candidate.token_id))
                beams.append(beam)
        # Stable: of equals the one that ended first stays in front.
        self._hypotheses = sorted([*self._hypotheses, *ended], key=lambda one: -one.score)[: self.width]
        self.is_finished = not beams or self._is_decided(beams[0])
        self._live = [] if self.is_finished else beams
        return [] if self.is_finished else steps

    def best(self) -> list[Hypothesis]:
        """The `params.n` best hypotheses so far, best first; final once the search has finished.

        Fewer only if so few different continuations are possible at all, e.g. of one allowed token.
        """
        return self._hypotheses[: self._params.n]

    def _rank(self, candidates: Sequence[Sequence[Candidate]]) -> list[tuple[int, Candidate]]:
        """The best continuations of all live beams together: parent and candidate."""
        order = sorted(
            (-(beam.score + candidate.score), parent, candidate.token_id, index)
            for parent, (beam, row) in enumerate(zip(self._live, candidates, strict=True))
            for index, candidate in enumerate(row)
        )
        return [(parent, candidates[parent][index]) for _, parent, _, index in order[: self._num_ranked]]

    def _extend(self, beam: _Beam, candidate: Candidate) -> _Beam:
        logprobs = beam.logprobs
        if logprobs is not None:
            if candidate.logprobs is None:
                raise ValueError(f"the candidate {candidate.token_id} came without log-probabilities")
            logprobs = (*logprobs, candidate.logprobs)
        return _Beam((*beam.token_ids, candidate.token_id), beam.score + candidate.score, logprobs)

    def _end_of(self, beam: _Beam, is_last: bool) -> tuple[FinishReason, int | None] | None:
        """Finish reason and stop reason of a beam that ends with its last token, None if it goes on."""
        token_id = beam.token_ids[-1]
        if token_id in self._end_token_ids:
            return FinishReason.STOP, None if token_id in self._eos_token_ids else token_id
        may_stop = len(beam.token_ids) >= self._params.min_tokens
        if may_stop and self._find_stop is not None and self._find_stop(beam.token_ids):
            return FinishReason.STOP, None
        return (FinishReason.LENGTH, None) if is_last else None

    def _conclude(self, beam: _Beam, reason: FinishReason, stop_reason: int | None) -> Hypothesis:
        score = beam.score / self._penalty(len(beam.token_ids))
        return Hypothesis(beam.token_ids, score, beam.score, reason, stop_reason, beam.logprobs)

    def _is_decided(self, best: _Beam) -> bool:
        """Whether to stop, though beams could go on, of which `best` is the first."""
        if len(self._hypotheses) < self.width:
            return False
        # A beam of one is greedy search, which ends with the first end.
        if self._params.early_stopping is True or self.width == 1:
            return True
        # "never" grants a penalty that favours length the greatest one; the default does not.
        grants_length = self._params.early_stopping == "never" and self._params.length_penalty > 0.0
        length = self._max_tokens if grants_length else self._num_tokens
        return best.score / self._penalty(length) <= self._hypotheses[-1].score

    def _penalty(self, length: int) -> float:
        return float(length**self._params.length_penalty)
