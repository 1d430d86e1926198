"""LiveRequests over an engine whose executor breaks for one sequence: the others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.checkpoint.source import resolve_model
from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import RequestError
from octavo.live_requests import LiveRequests
from octavo.outputs import RequestOutput
from octavo.prompts import EncodedPrompt
from octavo.request import TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams
from octavo.step import StepPlan, StepResult
from tests.fake_executor import FakeExecutor

POISON = 13


class PoisonedExecutor(FakeExecutor):
    """Fails every pass that holds the poison token."""

    def submit(self, plan: StepPlan) -> None:
        if any(POISON in piece.token_ids for piece in plan.slices):
            raise RuntimeError("poisoned")
        super().submit(plan)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve_model(None))


@pytest.fixture
def live(tokenizer) -> LiveRequests:
    return make_live(tokenizer, PoisonedExecutor(64, 16, vocab_size=1000))


def make_live(tokenizer: Tokenizer, executor: FakeExecutor) -> LiveRequests:
    engine = Engine(
        Scheduler(BlockManager(64, 16), max_num_seqs=8, max_num_batched_tokens=64),
        executor,
        eos_token_ids=(2,),
        vocab_size=1000,
        max_model_len=512,
        max_queued_requests=8,
    )
    return LiveRequests(engine, tokenizer)


def test_a_broken_request_ends_with_its_error_and_the_others_go_on(live):
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    bad = live.submit(EncodedPrompt(None, [5, POISON, 6]), params)
    good = live.submit(EncodedPrompt("text", [5, 6, 7]), params)
    pieces = {bad: [], good: []}
    for _ in range(6):
        live.step()
        for request_id in [key for key in pieces if not (pieces[key] and pieces[key][-1].finished)]:
            pieces[request_id] += live.take_ready(request_id)
    (broken,) = [output for piece in pieces[bad] for output in piece.outputs]
    assert broken.finish_reason == "error"
    assert "RuntimeError" in broken.error
    assert sum(len(output.token_ids) for piece in pieces[good] for output in piece.outputs) == 4
    assert pieces[good][-1].finished


def collected(live: LiveRequests, request_id: str) -> RequestOutput:
    """All of a request, run to its end."""
    whole: RequestOutput | None = None
    while whole is None or not whole.finished:
        live.step()
        for piece in live.take_ready(request_id):
            if whole is None:
                whole = piece
            else:
                whole.outputs += piece.outputs
                piece.outputs = []
                whole.add(piece)
    return whole


class ScoringExecutor(FakeExecutor):
    """Says how likely each token is: the less, the larger its id."""

    def collect(self) -> StepResult:
        result = super().collect()
        for sequence_id, token in result.tokens.items():
            logprobs = TokenLogprobs(token.token_id, -float(token.token_id), 1)
            result.tokens[sequence_id] = replace(token, logprobs=logprobs)
        return result


def test_the_best_come_together_numbered_anew_and_without_what_nobody_asked_for(tokenizer):
    live = make_live(tokenizer, ScoringExecutor(64, 16, vocab_size=1000))
    prompt = EncodedPrompt(None, [5, 6, 7])
    five = collected(live, live.submit(prompt, SamplingParams(n=5, seed=1, max_tokens=3, ignore_eos=True)))
    tokens: dict[int, list[int]] = {}
    for piece in five.outputs:
        tokens.setdefault(piece.index, []).extend(piece.token_ids)
    expected = sorted(tokens.values(), key=sum)[:2]
    best = live.submit(prompt, SamplingParams(n=2, best_of=5, seed=1, max_tokens=3, ignore_eos=True))
    output = collected(live, best)
    assert [piece.token_ids for piece in output.outputs] == expected
    assert [piece.index for piece in output.outputs] == [0, 1]
    assert all(piece.logprobs is piece.cumulative_logprob is None for piece in output.outputs)
    assert output.num_generated_tokens == 15
    shown = live.submit(prompt, SamplingParams(best_of=5, seed=1, max_tokens=3, ignore_eos=True, logprobs=0))
    (winner,) = collected(live, shown).outputs
    assert winner.cumulative_logprob == -sum(expected[0])


def test_a_broken_one_is_returned_only_when_there_is_nothing_better(tokenizer):
    for index, expected in ((1, "length"), (None, "error")):
        live = make_live(tokenizer, OneBreaks(64, 16, vocab_size=1000, broken_index=index))
        request_id = live.submit(
            EncodedPrompt(None, [5, 6, 7]), SamplingParams(best_of=2, max_tokens=3, ignore_eos=True)
        )
        (output,) = collected(live, request_id).outputs
        assert (output.finish_reason, output.index) == (expected, 0)


class OneBreaks(ScoringExecutor):
    """One of a request's sequences breaks at its last token, or all do."""

    def __init__(self, *sizes: int, vocab_size: int, broken_index: int | None) -> None:
        super().__init__(*sizes, vocab_size=vocab_size)
        self._broken_index = broken_index

    def collect(self) -> StepResult:
        plan = self._in_flight[0]
        result = super().collect()
        for piece in plan.slices:
            if piece.start_position == 4 and self._broken_index in (None, piece.sequence_id):
                result.failures[piece.sequence_id] = "broken"
        return result


def test_what_the_policy_would_ignore_is_refused(live):
    with pytest.raises(RequestError, match="priority"):
        live.submit(EncodedPrompt(None, [5]), SamplingParams(), ServiceParams(priority=1))


def test_an_abandoned_request_leaves_nothing_behind(live):
    request_id = live.submit(EncodedPrompt(None, [5, 6, 7]), SamplingParams(max_tokens=100, n=2))
    live.step()
    live.abandon(request_id)
    live.abandon(request_id)
    live.step()
    assert live._engine.num_running == 0
    assert not live._engine.has_work
    with pytest.raises(KeyError):
        next(live.take_ready(request_id))
