"""Candidates and beam search together give transformers' hypotheses and scores, on tiny models."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from octavo.checkpoint.source import resolve_model
from octavo.compute.runner.runner import ModelRunner
from octavo.control.decoding.beam_search import Hypothesis
from octavo.control.text.output_text import OutputText
from octavo.control.text.tokenizer import Tokenizer
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams
from tests.beam_driver import BLOCK_SIZE, num_blocks_for, run_beam_search
from tests.beam_reference import (
    CASES,
    NEAR_TIE,
    ReferenceBeam,
    assert_same_beams,
    case_params,
    favourite_tokens,
    reference_beams,
    reference_logprobs,
)
from tests.paged_model import load_decoder, make_kv_storage
from tests.tiny_models import load_reference, make_tiny_model, write_byte_tokenizer

MAX_TOKENS = 14
_RNG = random.Random(4)
PROMPTS = [[_RNG.randrange(3, 259) for _ in range(length)] for length in (5, 17)]


@dataclass(frozen=True, slots=True)
class Model:
    """One model on both sides, and tokens that end its beams."""

    folder: Path
    runner: ModelRunner
    reference: Any
    eos_token_id: int
    stop_token_ids: list[int]

    def search(self, prompt: list[int], params: SamplingParams, find_stop=None) -> list[Hypothesis]:
        return run_beam_search(
            self.runner.run, prompt, params, eos_token_ids=[self.eos_token_id], find_stop=find_stop
        )

    def expected(self, prompt: list[int], params: SamplingParams, tokenizer=None) -> list[ReferenceBeam]:
        return reference_beams(
            self.reference, prompt, params, eos_token_ids=[self.eos_token_id], tokenizer=tokenizer
        )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two libraries that both spread tiny products over all cores keep each other waiting."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = make_tiny_model(request.param, tmp_path_factory.mktemp(request.param))
    write_byte_tokenizer(folder)
    decoder = load_decoder(folder)
    num_blocks = num_blocks_for(8, 17 + MAX_TOKENS)
    reference = load_reference(folder)
    eos_token_id, *stop_token_ids = favourite_tokens(reference, PROMPTS)[:7]
    return Model(
        folder,
        ModelRunner(decoder, make_kv_storage(decoder, num_blocks, BLOCK_SIZE)),
        reference,
        eos_token_id,
        stop_token_ids,
    )


def assert_same_hypotheses(found: Sequence[Hypothesis], expected: Sequence[ReferenceBeam]) -> None:
    assert_same_beams([one.token_ids for one in found], expected)
    for one, beam in zip(found, expected, strict=True):
        # Sums of hundreds have no fourth decimal in transformers' float32.
        assert one.score == pytest.approx(beam.score, abs=NEAR_TIE, rel=1e-6)


@pytest.mark.parametrize(("width", "prompt"), [(2, PROMPTS[1]), (4, PROMPTS[0]), (8, PROMPTS[1])])
@pytest.mark.parametrize("name", CASES)
def test_hypotheses_and_scores_are_transformers(
    model: Model, name: str, width: int, prompt: list[int]
) -> None:
    params = case_params(
        name, width=width, n=width, max_tokens=MAX_TOKENS, stop_token_ids=model.stop_token_ids
    )
    found = model.search(prompt, params)
    assert_same_hypotheses(found, model.expected(prompt, params))
    for one in found:
        last = one.token_ids[-1]
        assert one.stop_reason == (last if last in params.stop_token_ids else None)


def test_the_cases_end_in_every_way(model: Model) -> None:
    """What the comparison above would not notice: that all beams run to the limit, or none do."""
    found = [
        one
        for name in ("several-ends", "several-ends-of-any-length")
        for prompt in PROMPTS
        for one in model.search(
            prompt,
            case_params(name, width=8, n=8, max_tokens=MAX_TOKENS, stop_token_ids=model.stop_token_ids),
        )
    ]
    assert len({len(one.token_ids) for one in found if one.finish_reason is FinishReason.STOP}) > 3
    assert {one.stop_reason is None for one in found} == {True, False}
    endless = case_params("ignore-eos", width=2, n=2, max_tokens=MAX_TOKENS, stop_token_ids=[])
    assert {one.finish_reason for one in model.search(PROMPTS[0], endless)} == {FinishReason.LENGTH}


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("width", [2, 4])
def test_stop_strings(model: Model, width: int, early_stopping: bool | str) -> None:
    tokenizer = Tokenizer.load(resolve_model(str(model.folder)))
    reference_tokenizer = transformers.AutoTokenizer.from_pretrained(model.folder)
    met: list[str | None] = []
    letters = {byte + 3: 4.0 for byte in b" abcdefghijklmnopqrstuvwxyz"}  # so that there is text
    for prompt in PROMPTS:
        wishes = {"width": width, "n": width, "max_tokens": MAX_TOKENS, "stop_token_ids": ()}
        free = model.expected(prompt, case_params("ignore-eos", **wishes, logit_bias=letters))
        params = case_params(
            "ignore-eos",
            **wishes,
            stop=pieces_of_text(free),
            early_stopping=early_stopping,
            logit_bias=letters,
        )

        def find_stop(token_ids: Sequence[int], params=params, prompt=prompt) -> bool:
            text = OutputText(tokenizer, params, prompt)
            text.push(token_ids, finished=False)
            met.append(text.stop_string)
            return text.stop_string is not None

        found = model.search(prompt, params, find_stop)
        assert_same_hypotheses(found, model.expected(prompt, params, reference_tokenizer))
        assert all(one.stop_reason is None for one in found)
    assert {stop_string is None for stop_string in met} == {True, False}


def pieces_of_text(beams: Sequence[ReferenceBeam]) -> list[str]:
    """A letter that comes late in these beams and pairs of letters in them."""
    letters = {byte + 3: chr(byte) for byte in b"abcdefghijklmnopqrstuvwxyz"}
    pairs = [
        letters[first] + letters[second]
        for beam in beams
        for first, second in zip(beam.token_ids[1:], beam.token_ids[2:], strict=False)
        if first in letters and second in letters
    ]
    singles = [letters[token] for beam in beams for token in beam.token_ids[6:] if token in letters]
    assert pairs
    assert singles
    return sorted({singles[0], *pairs[:3]})


def test_logprobs_are_the_models_own(model: Model) -> None:
    params = case_params("repetition", width=4, n=4, max_tokens=MAX_TOKENS, stop_token_ids=(), logprobs=2)
    for one in model.search(PROMPTS[1], params):
        expected = reference_logprobs(model.reference, PROMPTS[1], one.token_ids)
        assert one.logprobs is not None
        assert [entry.token_id for entry in one.logprobs] == list(one.token_ids)
        for entry, row in zip(one.logprobs, expected, strict=True):
            assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=1e-4)
            assert entry.rank == 1 + int((row > row[entry.token_id]).sum())
            assert entry.top_logprobs == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)
