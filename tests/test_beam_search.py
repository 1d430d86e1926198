"""Beam search through the public API gives transformers' hypotheses: tiny models and the starter model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from octavo import LLM, CompletionOutput, SamplingParams
from octavo.checkpoint.source import resolve_model
from octavo.families import describe_model
from tests.beam_reference import (
    CASES,
    assert_same_beams,
    case_params,
    favourite_tokens,
    reference_beams,
    reference_logprobs,
)
from tests.test_starter_model import CHAT, PROMPTS, load_in_transformers
from tests.tiny_models import FAMILIES, load_reference, make_tiny_model, write_byte_tokenizer

MAX_TOKENS = 14
WIDTHS = (2, 4, 8)
_RNG = random.Random(7)
TINY_PROMPTS = [[_RNG.randrange(3, 259) for _ in range(length)] for length in (3, 9, 21)]
LETTERS = {byte + 3: 4.0 for byte in b" abcdefghijklmnopqrstuvwxyz"}  # a bias that makes tiny models write
STARTER_TEXTS = (
    *(text for text, num_tokens in PROMPTS if num_tokens <= 18),
    CHAT.format("What is gravity? Answer in one sentence."),
    CHAT.format("Write a haiku about the sea."),
    CHAT.format("List three colours and say why people like them."),
)
STARTER_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Model:
    """One model on both sides, with tokens that end its beams."""

    folder: Path
    llm: LLM
    reference: Any
    eos_token_id: int
    stop_token_ids: list[int]

    def generate(self, prompts: list[list[int]], params: SamplingParams) -> list[list[CompletionOutput]]:
        outputs = self.llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
        for output in outputs:
            assert output.finished
            assert [one.index for one in output.outputs] == list(range(params.n))
            assert [one.error for one in output.outputs] == [None] * params.n
        return [output.outputs for output in outputs]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two libraries that both spread small products over all cores keep each other waiting."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A tiny model whose EOS is a token that its beams like to choose."""
    folder = tmp_path_factory.mktemp(request.param)
    reference = load_reference(make_tiny_model(request.param, folder / "first"))
    eos_token_id, *stop_token_ids = favourite_tokens(reference, TINY_PROMPTS)[:4]
    folder = make_tiny_model(request.param, folder / "last", eos_token_id=eos_token_id)
    write_byte_tokenizer(folder)
    with LLM(str(folder), dtype="float32", kv_cache_memory="4MB", num_threads=1, block_size=4) as llm:
        yield Model(folder, llm, reference, eos_token_id, stop_token_ids)


@pytest.mark.parametrize("name", CASES)
def test_cases_on_tiny_models(model: Model, name: str) -> None:
    for width, prompt in zip(WIDTHS, TINY_PROMPTS, strict=True):
        params = case_params(
            name, width=width, n=width // 2, max_tokens=MAX_TOKENS, stop_token_ids=model.stop_token_ids
        )
        (outputs,) = model.generate([prompt], params)
        expected = reference_beams(model.reference, prompt, params, eos_token_ids=[model.eos_token_id])
        assert_same_beams([one.token_ids for one in outputs], expected)
        for one in outputs:
            last = one.token_ids[-1]
            is_eos = last == model.eos_token_id and not params.ignore_eos
            assert one.finish_reason == ("stop" if is_eos or last in params.stop_token_ids else "length")
            assert one.stop_reason == (last if last in params.stop_token_ids else None)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_stop_strings_on_tiny_models(model: Model, early_stopping: bool | str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.folder)
    num_stopped = 0
    for prompt in TINY_PROMPTS:
        wishes = {"width": 4, "n": 4, "max_tokens": MAX_TOKENS, "stop_token_ids": (), "logit_bias": LETTERS}
        free = reference_beams(model.reference, prompt, case_params("ignore-eos", **wishes), eos_token_ids=())
        stop = letters_in([beam.token_ids for beam in free])
        params = case_params("ignore-eos", **wishes, stop=stop, early_stopping=early_stopping)
        (outputs,) = model.generate([prompt], params)
        expected = reference_beams(model.reference, prompt, params, eos_token_ids=(), tokenizer=tokenizer)
        assert_same_beams([one.token_ids for one in outputs], expected)
        for one in outputs:
            assert one.finish_reason in ("stop", "length")
            assert one.stop_reason in (stop if one.finish_reason == "stop" else [None])
            assert not any(string in one.text for string in stop)  # the text is cut before it
            num_stopped += one.finish_reason == "stop"
    assert num_stopped or early_stopping is not True  # otherwise longer ones may win


def letters_in(outputs: list[tuple[int, ...]]) -> list[str]:
    """A letter that comes late in these outputs, and two pairs of letters."""
    letters = {byte + 3: chr(byte) for byte in b"abcdefghijklmnopqrstuvwxyz"}
    texts = ["".join(letters.get(token_id, " ") for token_id in output) for output in outputs]
    pairs = [text[i : i + 2] for text in texts for i in range(1, len(text) - 1) if " " not in text[i : i + 2]]
    singles = [letter for text in texts for letter in text[6:] if letter != " "]
    return sorted({*pairs[:2], *singles[:1]})


def test_logprobs_are_the_models_own(model: Model) -> None:
    prompt = TINY_PROMPTS[1]
    params = case_params("repetition", width=4, n=4, max_tokens=MAX_TOKENS, stop_token_ids=(), logprobs=2)
    (outputs,) = model.generate([prompt], params)
    for one in outputs:
        expected = reference_logprobs(model.reference, prompt, one.token_ids)
        assert one.logprobs is not None
        assert len(one.logprobs) == len(one.token_ids)
        total = 0.0
        for token_id, entry, row in zip(one.token_ids, one.logprobs, expected, strict=True):
            assert entry[token_id].logprob == pytest.approx(float(row[token_id]), abs=1e-4)
            assert entry[token_id].rank == 1 + int((row > row[token_id]).sum())
            assert 2 <= len(entry) <= 3
            total += float(row[token_id])
        assert one.cumulative_logprob == pytest.approx(total, abs=1e-3)


def test_the_first_n_of_any_width_and_of_any_company(model: Model) -> None:
    """n cuts the same list; neither other requests nor the order of arrival change it."""
    wishes = {"width": 4, "max_tokens": MAX_TOKENS, "stop_token_ids": ()}
    alone = [model.generate([prompt], case_params("defaults", n=4, **wishes))[0] for prompt in TINY_PROMPTS]
    together = model.generate(TINY_PROMPTS[::-1], case_params("defaults", n=4, **wishes))[::-1]
    first = model.generate(TINY_PROMPTS, case_params("defaults", n=1, **wishes))
    for one, other, few in zip(alone, together, first, strict=True):
        assert one == other
        assert one[:1] == few


def test_a_width_of_one_is_greedy_search(model: Model) -> None:
    (beams,) = model.generate(
        [TINY_PROMPTS[0]], SamplingParams(use_beam_search=True, temperature=0.0, max_tokens=MAX_TOKENS)
    )
    (greedy,) = model.generate([TINY_PROMPTS[0]], SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS))
    assert beams[0].token_ids == greedy[0].token_ids
    assert beams[0].finish_reason == greedy[0].finish_reason


@pytest.mark.parametrize(
    "width", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(8, marks=pytest.mark.slow)]
)
def test_ten_prompts_of_the_starter_model(width: int) -> None:
    source = resolve_model(None)
    reference = load_in_transformers(source)
    eos_token_ids = describe_model(source).eos_token_ids
    params = SamplingParams(
        use_beam_search=True, best_of=width, n=width, temperature=0.0, max_tokens=STARTER_TOKENS
    )
    with LLM(dtype="float32", kv_cache_memory="256MB", num_threads=1) as llm:
        prompts = [llm.get_tokenizer().encode(text) for text in STARTER_TEXTS]
        assert len(prompts) == 10
        outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
    for prompt, output in zip(prompts, outputs, strict=True):
        expected = reference_beams(reference, prompt, params, eos_token_ids=eos_token_ids)
        assert_same_beams([one.token_ids for one in output.outputs], expected)
