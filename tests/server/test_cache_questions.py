"""Questions about the cache: each answer reaches whoever asked, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from octavo.errors import EngineUnavailableError, OctavoError, RequestError, RequestFailedError
from octavo.messages import CacheAnswer, DropPrefixes, ListPrefixes, ToEngine
from octavo.server import cache_questions
from octavo.server.cache_questions import CacheQuestions


async def test_answers_reach_those_who_asked_in_any_order() -> None:
    sent: list[ToEngine] = []
    questions = CacheQuestions(sent.append)
    first = asyncio.create_task(questions.ask(ListPrefixes))
    second = asyncio.create_task(questions.ask(DropPrefixes))
    await asyncio.sleep(0)
    assert [type(each) for each in sent] == [ListPrefixes, DropPrefixes]
    questions.receive(CacheAnswer(sent[1].query_id, {"num_blocks": 2}))
    questions.receive(CacheAnswer(sent[0].query_id, {"pins": []}))
    assert len(questions) == 0
    assert await first == {"pins": []}
    assert await second == {"num_blocks": 2}
    questions.receive(CacheAnswer(99, {}))  # nobody asked


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        (CacheAnswer(1, error="there is no pin 7"), RequestError),
        (CacheAnswer(1, error="internal fault: KeyError", is_fault=True), RequestFailedError),
    ],
)
async def test_what_was_wrong_is_told_from_what_broke(
    answer: CacheAnswer, error_type: type[OctavoError]
) -> None:
    questions = CacheQuestions(lambda message: None)
    asked = asyncio.create_task(questions.ask(ListPrefixes))
    await asyncio.sleep(0)
    questions.receive(answer)
    with pytest.raises(error_type, match=answer.error):
        await asked


async def test_no_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_questions, "ANSWER_SECONDS", 0.02)
    questions = CacheQuestions(lambda message: None)
    with pytest.raises(EngineUnavailableError, match="did not answer"):
        await questions.ask(ListPrefixes)
    assert len(questions) == 0
    asked = asyncio.create_task(questions.ask(ListPrefixes))
    await asyncio.sleep(0)
    questions.fail_all(EngineUnavailableError("gone"))
    with pytest.raises(EngineUnavailableError, match="gone"):
        await asked
