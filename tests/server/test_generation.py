"""Generation over a front whose engine is played by hand: best_of, beams, usage."""

from __future__ import annotations

import asyncio

import pytest

from octavo.checkpoint.source import resolve_model
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import DeadlineExceededError, RequestFailedError
from octavo.messages import AbortRequest, StepFinished, SubmitRequest, ToEngine
from octavo.observability.metrics import ServerMetrics
from octavo.request import FinishReason, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.server.front import Front
from octavo.server.generation import ChoiceDelta, Generation
from octavo.server.openai.reply import usage
from octavo.service_params import ServiceParams
from tests.server.test_front import FACTS, STATS

LENGTH = FinishReason.LENGTH


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve_model(None))


class Played:
    """A generation whose engine says what the test lets it say."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, num_prompts: int = 1) -> None:
        self.sent: list[ToEngine] = []
        self.front = Front(
            self.sent.append, ServerMetrics(), max_unstarted=10, on_engine_end=lambda failure: None
        )
        self.front.receive(FACTS)
        self.front.open()
        prompts = [[504, 3575]] * num_prompts
        service = ServiceParams(cache_salt="salt")
        self.generation = Generation(self.front, tokenizer, prompts, params, service=service)

    async def run(self, *steps: list[TokenDelta]) -> list[ChoiceDelta]:
        started = asyncio.create_task(self.generation.start())
        await asyncio.sleep(0)
        for deltas in steps:
            self.front.receive(StepFinished(1, deltas, STATS))
        await started
        return [each for gained in [deltas async for deltas in self.generation.deltas()] for each in gained]


def delta(
    index: int, *tokens: tuple[int, float], request_id: str = "1", reason: FinishReason | None = LENGTH
) -> TokenDelta:
    logprobs = tuple(TokenLogprobs(token_id, logprob, 1) for token_id, logprob in tokens)
    token_ids = tuple(token_id for token_id, _ in tokens)
    return TokenDelta(request_id, index, token_ids, logprobs, finish_reason=reason)


async def test_the_best_come_whole_and_in_order_when_all_have_ended(tokenizer: Tokenizer) -> None:
    played = Played(tokenizer, SamplingParams(n=2, best_of=3))
    choices = await played.run(
        [delta(0, (100, -1.0), reason=None), delta(1, (200, -3.0)), delta(2, (300, -0.5), reason=None)],
        [delta(2, (301, -0.7))],
        [delta(0, (101, -0.1))],
    )
    submitted = played.sent[0]
    assert isinstance(submitted, SubmitRequest)
    assert (submitted.params.logprobs, submitted.service.cache_salt) == (0, "salt")
    assert [(each.choice_index, each.token_ids) for each in choices] == [(0, (100, 101)), (1, (300, 301))]
    assert all(each.text == tokenizer.decode(list(each.token_ids)) for each in choices)
    assert all(each.logprobs == () for each in choices)  # which the client did not ask for
    assert played.generation.num_choices == 2
    assert usage(played.generation)["completion_tokens"] == 5  # what was thrown away was generated too


async def test_logprobs_that_were_asked_for_are_kept(tokenizer: Tokenizer) -> None:
    played = Played(tokenizer, SamplingParams(best_of=2, logprobs=0))
    (choice,) = await played.run([delta(0, (100, -2.0)), delta(1, (200, -1.0))])
    assert [entry.logprob for entry in choice.logprobs] == [-1.0]


async def test_each_prompt_chooses_for_itself(tokenizer: Tokenizer) -> None:
    played = Played(tokenizer, SamplingParams(best_of=2), num_prompts=2)
    choices = await played.run(
        [delta(0, (100, -2.0)), delta(1, (101, -1.0)), delta(0, (200, -1.0), request_id="2")],
        [delta(1, (201, -2.0), request_id="2")],
    )
    assert [(each.choice_index, each.prompt_index, each.token_ids) for each in choices] == [
        (0, 0, (101,)),
        (1, 1, (200,)),
    ]


async def test_a_stop_string_ends_one_of_them_and_counts_only_its_tokens(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode(" 8, 9, 10", add_special_tokens=False)
    played = Played(tokenizer, SamplingParams(best_of=2, stop=["9"]))
    tokens = [(token_id, -0.1) for token_id in token_ids]
    (choice,) = await played.run(
        [delta(0, *tokens, reason=None), delta(1, (200, -5.0), reason=None)], [delta(1, (200, -5.0))]
    )
    assert (choice.text, choice.finish_reason, choice.stop_reason) == (" 8, ", FinishReason.STOP, "9")
    assert AbortRequest("1", 0) in played.sent
    assert played.generation.num_output_tokens == len(choice.token_ids) + 2


async def test_beams_are_the_engines_choice_and_cut_before_a_stop_string(tokenizer: Tokenizer) -> None:
    params = SamplingParams(n=2, best_of=4, use_beam_search=True, temperature=0, stop=["9"])
    played = Played(tokenizer, params)
    token_ids = tokenizer.encode(" 8, 9, 10", add_special_tokens=False)
    tokens = [(token_id, -0.1) for token_id in token_ids]
    # The engine ends a beam with the token that completes a stop string, and does not say why it ended.
    at_stop = next(size for size in range(1, len(tokens)) if tokenizer.decode(token_ids[:size]).endswith("9"))
    ended = delta(1, *tokens[:at_stop], reason=FinishReason.STOP)
    choices = await played.run([delta(0, (100, -9.0), (2, -9.0), reason=FinishReason.STOP), ended])
    submitted = played.sent[0]
    assert isinstance(submitted, SubmitRequest)
    assert submitted.params.logprobs is None
    assert [each.choice_index for each in choices] == [0, 1]
    assert (choices[0].text, choices[0].stop_reason) == (tokenizer.decode([100]), None)  # an EOS is not shown
    assert (choices[1].text, choices[1].stop_reason) == (" 8, ", "9")
    assert tokenizer.decode(list(choices[1].token_ids)).endswith("9")


async def test_sharing_is_the_mean_of_the_prompts(tokenizer: Tokenizer) -> None:
    played = Played(tokenizer, SamplingParams(n=2), num_prompts=2)
    assert "kv_sharing" not in usage(played.generation)
    await played.run(
        [
            TokenDelta(request_id, index, (100,), finish_reason=LENGTH, num_cached_tokens=1, sharing=sharing)
            for request_id, sharing in (("1", 0.5), ("2", 0.25))
            for index in (0, 1)
        ]
    )
    reported = usage(played.generation)
    assert reported["kv_sharing"] == 0.375
    assert reported["prompt_tokens_details"] == {"cached_tokens": 2}  # once a prompt


async def test_a_failure_among_them_fails_the_request(tokenizer: Tokenizer) -> None:
    played = Played(tokenizer, SamplingParams(best_of=2))
    broken = TokenDelta("1", 1, finish_reason=FinishReason.ERROR, error="it broke")
    with pytest.raises(RequestFailedError, match="it broke"):
        await played.run([delta(0, (100, -1.0)), broken])
    late = TokenDelta("1", 1, finish_reason=FinishReason.DEADLINE, error="too late")
    with pytest.raises(DeadlineExceededError, match="too late"):
        await Played(tokenizer, SamplingParams(best_of=2)).run([delta(0, (100, -1.0), reason=None), late])
