"""The beams of live beam searches as sequences: each step's choice becomes forks, tokens and ends.

Owns the searches; the scheduler owns the sequences' status, and the cache is asked to fork.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as ReadOnlySequence

from octavo.control.decoding.beam_search import BeamSearch, BeamStep, Hypothesis
from octavo.control.scheduler.roster import Roster
from octavo.request import FinishReason, Request, Sequence, TokenDelta
from octavo.sampling_params import SamplingParams
from octavo.step import Candidate

# (params, prompt) -> whether a run of output tokens has a stop string in its text.
StopFinder = Callable[[SamplingParams, ReadOnlySequence[int]], Callable[[ReadOnlySequence[int]], bool]]


class LiveBeams:
    """One BeamSearch for each live request that asks for it.

    Args:
        new_sequence: makes a sequence of a request with the given tokens.
        find_stop: how stop strings are found; None where requests never have any.
    """

    def __init__(
        self,
        roster: Roster,
        eos_token_ids: frozenset[int],
        new_sequence: Callable[[Request, list[int]], Sequence],
        find_stop: StopFinder | None,
    ) -> None:
        self._roster = roster
        self._eos_token_ids = eos_token_ids
        self._new_sequence = new_sequence
        self._find_stop = find_stop
        self._searches: dict[str, BeamSearch] = {}

    def begin(self, request: Request) -> None:
        """Start a search over the request's one sequence, and note in it what it asks of the sampler."""
        params = request.params
        find_stop = None
        if params.stop and self._find_stop is not None:
            find_stop = self._find_stop(params, request.prompt_token_ids)
        search = BeamSearch(
            params,
            max_tokens=request.max_tokens,
            end_token_ids=request.end_token_ids,
            eos_token_ids=self._eos_token_ids,
            find_stop=find_stop,
        )
        self._searches[request.request_id] = search
        request.num_candidates = search.num_candidates
        request.is_plain = False

    def forget(self, request: Request) -> None:
        """The request is alive no longer. Harmless for one that is no beam search."""
        self._searches.pop(request.request_id, None)

    def advance(self, request: Request, found: dict[int, list[Candidate]]) -> list[TokenDelta]:
        """Let all live beams take their step. What the client gains: nothing before the end."""
        search = self._searches[request.request_id]
        live = request.sequences
        steps = search.advance([found[beam.sequence_id] for beam in live])
        if search.is_finished:
            for beam in live:
                self._roster.finish(beam, FinishReason.STOP)
            return self._conclude(request, search.best())
        request.sequences = self._follow(live, steps)
        for beam in live:
            if beam not in request.sequences:
                self._roster.finish(beam, FinishReason.ABORT)
        return []

    def _follow(self, live: list[Sequence], steps: list[BeamStep]) -> list[Sequence]:
        """The next live beams: a beam's first successor goes on in its place, the others fork it."""
        followed: set[int] = set()
        beams = []
        for step in steps:
            beam = live[step.parent]
            if step.parent in followed:
                child = self._new_sequence(beam.request, list(beam.token_ids))
                self._roster.fork(beam, child)
                beam = child
            followed.add(step.parent)
            beams.append(beam)
        # All forks come before the first token: they are of what the parents had in common.
        for beam, step in zip(beams, steps, strict=True):
            beam.token_ids.append(step.token_id)
        return beams

    def _conclude(self, request: Request, best: list[Hypothesis]) -> list[TokenDelta]:
        """The last deltas: `n` of them, for whoever follows the choices waits for each one's end. Where
        fewer different continuations are possible, the worst of them stands for those that are not."""
        if not best:
            error = "no continuation is possible: every token is forbidden"
            return [
                TokenDelta(request.request_id, index, finish_reason=FinishReason.ERROR, error=error)
                for index in range(request.params.n)
            ]
        last = len(best) - 1
        return [self._delta(request, index, best[min(index, last)]) for index in range(request.params.n)]

    def _delta(self, request: Request, index: int, best: Hypothesis) -> TokenDelta:
        return TokenDelta(
            request_id=request.request_id,
            index=index,
            token_ids=best.token_ids,
            logprobs=best.logprobs,
            finish_reason=best.finish_reason,
            stop_reason=best.stop_reason,
            num_cached_tokens=request.num_cached_tokens or 0,
            sharing=request.sharing,
        )
