"""LiveRequests over an engine whose executor breaks for one sequence: the others go on."""

from __future__ import annotations

import pytest

from octavo.checkpoint.source import resolve_model
from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.text.tokenizer import Tokenizer
from octavo.live_requests import EncodedPrompt, LiveRequests
from octavo.sampling_params import SamplingParams
from octavo.step import StepPlan
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
    engine = Engine(
        Scheduler(BlockManager(64, 16), max_num_seqs=8, max_num_batched_tokens=64),
        PoisonedExecutor(64, 16, vocab_size=1000),
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
