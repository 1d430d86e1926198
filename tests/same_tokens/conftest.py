"""The starter model, what is asked of it, and what comes of each request when it is served alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from octavo.checkpoint.source import ModelSource, resolve_model
from octavo.compute.kernels import KernelTable, for_device, reference_table
from octavo.compute.models.decoder import Decoder
from octavo.compute.models.weights import load_weights
from octavo.control.text.tokenizer import Tokenizer
from octavo.families import describe_model
from octavo.sampling_params import SamplingParams
from tests.same_tokens.recorded_engine import RecordedEngine, Trail, Wish

NUM_OUTPUT_TOKENS = 12
CPU = torch.device("cpu")

STORY = (
    "The lighthouse keeper counted the ships by their lamps. On the night of the storm there were eleven, "
    "and ten came home. He wrote the number in the ledger, shut it, and went down to the harbour with "
    "a lantern, though everyone told him that nobody could be alive out there. "
)
CODE = (
    "def merge(left: list[int], right: list[int]) -> list[int]:\n    merged = []\n    i = j = 0\n"
    "    while i < len(left) and j < len(right):\n        if left[i] <= right[j]:\n"
)
# Name, text (repeated as often as it takes), how many tokens of it, and how to choose. The longest reaches
# over the border of two pieces of native attention; seeds and prompts have nothing in common.
REQUESTS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("greedy-5", "The capital of France is", 5, {"temperature": 0.0}),
    ("plain-15", "Roses are red, violets are", 15, {"temperature": 1.0, "seed": 11}),
    (
        "nucleus-23",
        "Le petit prince habitait une plan\u00e8te",
        23,
        {"temperature": 0.8, "top_p": 0.9, "seed": 2},
    ),
    ("greedy-39", "city,country\nParis,France\nRome,Italy\n", 39, {"temperature": 0.0, "logprobs": 2}),
    (
        "penalties-77",
        CODE,
        77,
        {"temperature": 0.7, "top_k": 50, "presence_penalty": 0.4, "frequency_penalty": 0.2, "seed": 5},
    ),
    ("greedy-130", STORY, 130, {"temperature": 0.0, "repetition_penalty": 1.1}),
    (
        "min-p-199",
        "Dear Sir,\n\n" + CODE + STORY,
        199,
        {"temperature": 1.2, "min_p": 0.02, "logprobs": 3, "seed": -7},
    ),
    ("plain-300", "Chapter 1. " + STORY, 300, {"temperature": 1.0, "seed": 2**40}),
)

MakeEngine = Callable[..., RecordedEngine]


@pytest.fixture(scope="session")
def source() -> ModelSource:
    return resolve_model(None)


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)


def load(source: ModelSource, kernels: KernelTable) -> Decoder:
    description = describe_model(source)
    weights = load_weights(description, dtype=torch.float32, device=CPU)
    return Decoder(description.spec, weights, kernels)


@pytest.fixture(scope="session")
def native() -> KernelTable:
    kernels = for_device(CPU)
    if kernels.name == "reference":
        pytest.skip(f"the promise is of the native kernels: {kernels.describe()[0].reason}")
    return kernels


@pytest.fixture(scope="session")
def native_decoder(source: ModelSource, native: KernelTable) -> Decoder:
    return load(source, native)


@pytest.fixture(scope="session")
def make_engine(native_decoder: Decoder, native: KernelTable) -> MakeEngine:
    """An engine of one test's own, on the one model."""
    return lambda **settings: RecordedEngine(native_decoder, native, **settings)


@pytest.fixture(scope="session")
def make_torch_engine(source: ModelSource) -> MakeEngine:
    """The same on torch's kernels alone."""
    kernels = reference_table("to compare with")
    decoder = load(source, kernels)
    return lambda **settings: RecordedEngine(decoder, kernels, **settings)


@pytest.fixture(scope="session")
def wishes(source: ModelSource) -> dict[str, Wish]:
    tokenizer = Tokenizer.load(source)
    made = {}
    for name, text, num_tokens, fields in REQUESTS:
        token_ids = tokenizer.encode(text)
        prompt = (token_ids * (1 + num_tokens // len(token_ids)))[:num_tokens]
        params = SamplingParams(max_tokens=NUM_OUTPUT_TOKENS, ignore_eos=True, **fields)
        made[name] = Wish(name, tuple(prompt), params)
    return made


class Alone:
    """Trails of requests served alone: whole prefill, no prefix cache. Each is computed once."""

    def __init__(self, make_engine: MakeEngine) -> None:
        self._engine = make_engine(num_blocks=24)
        self._trails: dict[str, Trail] = {}

    def __call__(self, wish: Wish) -> Trail:
        key = repr((wish.prompt, wish.params))  # parameters are not hashable
        if key not in self._trails:
            request_id = self._engine.submit(wish)
            self._engine.finish()
            self._trails[key] = self._engine.trail(request_id)
        return self._trails[key]


@pytest.fixture(scope="session")
def alone(make_engine: MakeEngine) -> Alone:
    return Alone(make_engine)
